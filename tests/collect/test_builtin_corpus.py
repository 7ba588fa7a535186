"""The built-in corpus: the same on every run, clean of the machine, readable after extraction."""

import math
import os
import re
import socket
import sys
from pathlib import Path

import pytest
from collect_helpers import files_of, records_of, stage_context
from resiliparse.extract.html2text import extract_plain_text

from bessemer.collect import CollectConfig, collect
from bessemer.collect.builtin.pages import PageDoc, signature_of
from bessemer.collect.builtin.rendering import Group, corpus_groups, render_group
from bessemer.errors import BessemerError

MODULES = ("math", "json", "os", "fractions", "time")


def collect_modules(folder: Path, **settings: object) -> Path:
    context = stage_context(folder)
    collect(CollectConfig.model_validate({"builtin_modules": MODULES, **settings}), context)
    return context.output


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> Path:
    return collect_modules(tmp_path_factory.mktemp("builtin"))


def pages_of(output: Path) -> dict[str, str]:
    pages = [record for record in records_of(output) if record.type == "response"]
    return {page.uri: page.payload().content.decode() for page in pages}


def test_two_runs_give_the_same_bytes(output, tmp_path):
    assert files_of(collect_modules(tmp_path)) == files_of(output)


def test_every_module_has_a_page_that_the_index_links_to(output):
    assert list(pages_of(output)) == [
        "http://pydoc.localhost/index.html",
        *(f"http://pydoc.localhost/reference/{name}.html" for name in MODULES),
    ]
    assert not (output / "crawl.jsonl").exists()


def test_nothing_of_the_machine_or_its_user_is_in_the_records(output, monkeypatch, tmp_path):
    monkeypatch.setenv("BESSEMER_TEST_SECRET", "a-secret-of-the-environment")
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(name, "a-user-of-ours")
    content = b"".join(record.block for record in records_of(collect_modules(tmp_path))).decode()
    secrets = ["a-secret-of-the-environment", "a-user-of-ours", str(tmp_path), sys.prefix, sys.executable]
    # What cannot be told from ordinary words is left out: short names, and such as `localhost` or `runner`.
    names = (os.getcwd(), os.path.expanduser("~"), socket.gethostname())
    secrets += [name for name in names if len(name) > 5 and not name.isalpha()]
    assert [secret for secret in secrets if secret in content] == []
    assert re.search(r" at 0x[0-9a-f]{6,}", content) is None


def test_extracted_text_has_each_signature_followed_by_its_docstring(output):
    html = pages_of(output)["http://pydoc.localhost/reference/math.html"]
    text = extract_plain_text(html, main_content=True, preserve_formatting=True)
    assert text.startswith("math\n\n")
    for name in ("gcd", "sqrt", "comb", "isclose"):
        function = getattr(math, name)
        assert f"\n\n{name}{signature_of(function) or '(*integers)'}\n{function.__doc__}" in text


def test_a_limit_on_pages_holds(tmp_path):
    assert len(pages_of(collect_modules(tmp_path, max_pages=2))) == 2


def test_modules_that_crash_or_fail_are_reported_and_the_others_rendered(tmp_path, monkeypatch):
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "crashes_here.py").write_text("import os\nos._exit(3)\n")
    (modules / "fails_here.py").write_text("import sys\nprint('noise')\nraise SystemExit('no')\n")
    (modules / "works_here.py").write_text('"""A module that works."""\n')
    monkeypatch.syspath_prepend(str(modules))
    group = Group("modules", ("crashes_here", "fails_here", "works_here"))
    answers = render_group(group, tmp_path, deadline_s=60.0, advance=lambda: None)
    faults = {answer["name"]: " ".join(answer["faults"]) for answer in answers}
    assert faults["crashes_here"] == "crashed the process that documents it (exit code 3)"
    assert faults["fails_here"] == "cannot be documented: SystemExit: no"
    assert "A module that works." in answers[-1]["pages"]["reference/works_here"]


def test_a_module_that_hangs_stops_the_run_instead_of_changing_the_corpus(tmp_path, monkeypatch):
    modules = tmp_path / "modules"
    modules.mkdir()
    (modules / "hangs_here.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.syspath_prepend(str(modules))
    group = Group("modules", ("hangs_here",))
    with pytest.raises(BessemerError, match=r"hangs_here was not documented within 3 s.*builtin_deadline_s"):
        render_group(group, tmp_path, deadline_s=0.3, advance=lambda: None)


def test_a_package_gives_a_page_for_each_function_that_says_something(tmp_path):
    (package,) = render_group(Group("packages", ("json",)), tmp_path, 60.0, lambda: None)
    pages = package["pages"]
    assert list(pages) == ["reference/json", *sorted(set(pages) - {"reference/json"})]
    assert "<h1>json.dumps</h1>" in pages["reference/json.dumps"]
    assert "/reference/json.dumps.html" in pages["reference/json"]
    links = re.findall(r'href="/([^"]+)\.html"', "".join(pages.values()))
    assert set(links) - {"index"} <= set(pages)


def test_topics_of_the_language_are_pages(tmp_path):
    (topic,) = render_group(Group("topics", ("assert",)), tmp_path, 60.0, lambda: None)
    assert "<h1>assert</h1>" in topic["pages"]["topics/assert"]


def test_a_package_that_is_not_installed_is_reported():
    config = CollectConfig.model_validate({"builtin_packages": ["json", "not_installed_here"]})
    groups, missing = corpus_groups(config)
    assert groups[-1] == Group("packages", ("json",))
    assert missing == {"not_installed_here": "not installed"}


def test_paths_and_addresses_are_taken_out():
    doc = PageDoc()
    text = f"<function f at 0x7f00deadbeef> from {sys.prefix}/lib and {os.getcwd()}/here"
    assert doc.scrub(text) == "<function f> from /lib and /here"
