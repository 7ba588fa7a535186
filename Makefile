# `make demo` trains a model from raw pages to an assistant; `make test` runs the tests.
# Both set up .venv themselves. Needs Python 3.11 or newer and make, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST_WORKERS ?= 2

.PHONY: help setup setup-dev demo test test-all lint format bench equivalence clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else "Bessemer needs Python 3.11 or newer, $(PYTHON) is %d.%d: run make PYTHON=/path/to/newer/python" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@touch $@

$(VENV)/.installed: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

setup: $(VENV)/.installed ## Install into .venv

setup-dev: $(VENV)/.installed-dev ## Install with what tests and lint need

demo: setup ## Raw pages to an assistant: 6 to 14 minutes on two CPU cores
	$(BIN)/bessemer run recipes/quickstart.yaml

test: setup-dev ## The tests (under 15 minutes on two cores)
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) -m "not slow"

test-all: setup-dev ## The tests, slow ones too
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS)

lint: setup-dev ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: setup-dev ## Let ruff put the code in shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup-dev ## Benchmarks, each against its peer in one run; those of curation need WARC=SAMPLES
	$(BIN)/python benchmarks/cpu_kernels.py
	@if [ -n "$(WARC)" ]; then $(BIN)/python benchmarks/warc_to_documents.py $(WARC) \
		&& $(BIN)/python benchmarks/language_identification.py $(WARC); \
	else echo "warc_to_documents.py and language_identification.py are left out: give WARC files with WARC='a.warc.gz b.warc.gz'"; fi
	@echo "benchmarks/heuristics.py needs the extra 'bench' and a folder of documents (--data): see its head"

equivalence: setup-dev ## Measure docs/equivalence.md anew: every layout of processes against one
	$(BIN)/python -m bessemer.training.parallel.equivalence_page docs/equivalence.md

clean: ## Remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) .pytest_cache .ruff_cache
