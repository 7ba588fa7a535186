"""The model card: README.md of a Hugging Face folder, written from the manifests of the whole lineage."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import yaml

from bessemer.evaluation.table import COLUMNS
from bessemer.export.figures import cost_cells, estimate_text, made, total_cost
from bessemer.export.samples import documents_by_source, newest_fetch, num_of
from bessemer.export.view import RunView
from bessemer.model.config import parameter_count
from bessemer.model.huggingface import config_from_huggingface
from bessemer.runner.cost import WATTS_PER_CORE
from bessemer.runner.manifest import Artifact
from bessemer.runner.progress import compact, duration

_CHAT_KINDS = ("sft", "dpo")


def model_card(view: RunView, model: Artifact, license: str | None, dtype: str) -> str:
    """Markdown with YAML front matter for `model`, the artifact whose weights are exported as `dtype`.

    `license` is an identifier as the Hub knows it, or None: the card then says that none was chosen.
    """
    parts = [
        _front_matter(view, license),
        f"# {_plain(view.name)}\n",
        _introduction(view, model, license, dtype),
        _use(view, model),
        _figures(view, model, dtype),
        _limits(view, model),
        _data(view),
        _training(view),
        _cost(view),
        _lineage(view),
    ]
    return "\n".join(part for part in parts if part)


def _front_matter(view: RunView, license: str | None) -> str:
    values: dict[str, Any] = {
        "language": _all_languages(view),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["bessemer", "text-generation", *(["conversational"] if _is_assistant(view) else [])],
    }
    if license is not None:
        values = {"license": license, **values}
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---\n"


def _all_languages(view: RunView) -> list[str]:
    """Codes of the languages that curation kept; English where it kept any language."""
    artifacts = [stage.artifact for stage in view.of_stage_kind("curate") if stage.artifact]
    return sorted({code for each in artifacts for code in each.manifest.config.get("languages", ())}) or [
        "en"
    ]


def _is_assistant(view: RunView) -> bool:
    return bool(view.of_stage_kind(*_CHAT_KINDS))


def _introduction(view: RunView, model: Artifact, license: str | None, dtype: str) -> str:
    values = json.loads((model.folder / "config.json").read_bytes())
    config = config_from_huggingface(values)
    origin = "trained from scratch" if view.of_stage_kind("pretrain") else "adapted from another model"
    role = (
        "answers questions in a chat" if _is_assistant(view) else "continues text; it was not tuned to chat"
    )
    licensed = f"License: {license}." if license else "License: none was chosen; ask the owner of this model."
    rows = [
        ["architecture", f"{values['architectures'][0]}, decoder-only transformer"],
        ["parameters", f"{parameter_count(config):,}"],
        ["layers", f"{config.num_hidden_layers}, width {config.hidden_size}"],
        [
            "heads",
            f"{config.num_attention_heads} ({config.num_key_value_heads} key/value), {config.head_dim} wide",
        ],
        ["feed-forward width", f"{config.intermediate_size:,}"],
        ["vocabulary", f"{config.vocab_size:,} tokens (byte-level BPE)"],
        ["context", f"{config.max_position_embeddings:,} positions{_trained_context(view)}"],
        ["weights", dtype],
    ]
    size = compact(parameter_count(config))
    return (
        f"A language model of {size} parameters, {origin} by one Bessemer recipe. It {role}.\n\n"
        f"{licensed}\n\n{_table(['property', 'value'], rows)}"
    )


def _trained_context(view: RunView) -> str:
    lengths = [
        stage.artifact.manifest.config.get("sequence_length", 0)
        for stage in view.of_stage_kind("pretrain", *_CHAT_KINDS)
        if stage.artifact
    ]
    return f", trained on sequences of up to {max(lengths):,}" if any(lengths) else ""


def _use(view: RunView, model: Artifact) -> str:
    question = _example_question(view, model.stage)
    if not _is_assistant(view):
        encode = 'inputs = tokenizer("The", return_tensors="pt")'
        text = "output[0]"
    else:
        encode = (
            f'messages = [{{"role": "user", "content": {json.dumps(question, ensure_ascii=False)}}}]\n'
            "inputs = tokenizer.apply_chat_template(\n"
            '    messages, add_generation_prompt=True, return_tensors="pt", return_dict=True\n'
            ")"
        )
        text = 'output[0, inputs["input_ids"].shape[1] :]'
    return f"""## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

folder = "."  # this folder
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForCausalLM.from_pretrained(folder)
{encode}
output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(tokenizer.decode({text}, skip_special_tokens=True))
```

Or in a terminal, token by token: `bessemer chat FOLDER`.
"""


def _example_question(view: RunView, model: str) -> str:
    """A question that the model answered rightly, else any that was asked."""
    rows = view.answers.get(model, ())
    taught = [row for row in rows if row["group"] == "trained"]
    right = [row["text"] for row in taught if row["verdict"] == "right"]
    return next(iter([*right, *(row["text"] for row in taught)]), "Hello! What can you do?")


def _figures(view: RunView, model: Artifact, dtype: str) -> str:
    if not view.results:
        return ""
    rows = []
    for name, row in view.results.items():
        cells = [
            value + (f" ({interval})" if interval else "")
            for value, interval in (estimate_text(row.get(figure), form) for figure, _, form in COLUMNS)
        ]
        rows.append([f"**{name}** (this model)" if name == model.stage else name, *cells])
    final = view.results.get(model.stage, {})
    rounded = (
        "" if dtype == "float32" else f" The figures are those of the weights before rounding to {dtype}."
    )
    rested = {
        name: f"{num_of(final, name):,}" for name in ("bits_per_byte", "answer_accuracy", "made_up_rate")
    }
    return f"""## Evaluation

{_table(["model", *(heading for _, heading, _ in COLUMNS)], rows)}
In brackets: 95 % intervals.{rounded}

- Bits per byte: on {rested["bits_per_byte"]} held-out documents; lower is better.
- Right: of {rested["answer_accuracy"]} questions about taught objects, in phrasings that training never used.
- Made up: of {rested["made_up_rate"]} questions about names that do not exist.
- Decoding is greedy. {view.key_definition}
"""


def _limits(view: RunView, model: Artifact) -> str:
    row = view.results.get(model.stage, {})
    made_up, interval = estimate_text(row.get("made_up_rate"), "{:.1%}")
    wrong = (
        f"Asked about names that do not exist, it makes something up {made_up} of the time ({interval}). "
        if interval
        else "How often it makes things up was not measured. "
    )
    newest = _knowledge_date(view)
    knowledge = (
        f" It knows nothing newer than {newest[:10]}, when the newest page was made." if newest else ""
    )
    limits = [
        "It knows what its training documents say and little else; outside their subjects it produces fluent "
        f"nonsense.{knowledge}",
        f"{wrong}Check what it says against its sources.",
        "The evaluation asks, in other words, about objects whose answers were taught. It measures recall, "
        "not reasoning, and not how the model fares with questions of other kinds.",
        f"It reads and writes the languages of its training text ({', '.join(_all_languages(view))}) only.",
        "It was neither trained nor tested for safety, and is not meant for decisions that matter.",
    ]
    return "## Limits\n\n" + "".join(f"- {limit}\n" for limit in limits)


def _knowledge_date(view: RunView) -> str | None:
    """ISO 8601 time that no page is newer than: when it was fetched, or when its package was installed.

    None when nothing dated was collected.
    """
    documents = view.last("documents")
    dates = [artifact.manifest.metrics.get("no_newer_than") for artifact in view.of_kind("pages")]
    dates.append(newest_fetch(documents.folder) if documents else None)
    return max((date for date in dates if date), default=None)


def _data(view: RunView) -> str:
    documents = view.last("documents")
    if documents is None:
        return ""
    metrics = documents.manifest.metrics
    sources = documents_by_source(documents.folder)
    shown = ", ".join(f"{_plain(source)} ({count:,} documents)" for source, count in sources[:10])
    more = f" and {len(sources) - 10:,} more" if len(sources) > 10 else ""
    newest = _knowledge_date(view)
    lines = [f"- Sources: {shown}{more}.{_builtin(view)}"]
    if "records" in metrics:
        lines.append(f"- Pages: {metrics['records']:,} entered curation, {metrics['documents']:,} were kept.")
    tokens = view.last("tokens")
    if tokens is not None:
        lines.append(f"- Tokens: {_made(view, 'tokens')}.")
    lines.append(f"- Knowledge cutoff: {newest or 'unknown'} (newest page fetched or installed).")
    for kind, label in (("synthesize", "Instruction data"), ("prefer", "Preferences")):
        if told := _made(view, kind):
            lines.append(f"- {label}: {told}, made by rule from the documents.")
    return "## Data\n\n" + "\n".join(lines) + "\n"


def _builtin(view: RunView) -> str:
    """What the built-in corpus is, where it was used: its host name alone says little."""
    configs = [stage.artifact.manifest.config for stage in view.of_stage_kind("collect") if stage.artifact]
    for config in configs:
        if config.get("source") == "builtin":
            modules = config.get("builtin_modules")
            packages = f"{len(modules)} modules" if modules else ", ".join(config.get("builtin_packages", ()))
            return f" These pages are the documentation of Python and its libraries as installed: {packages}."
    return ""


def _made(view: RunView, kind: str) -> str:
    return next((text for stage in reversed(view.of_stage_kind(kind)) if (text := made(stage))), "")


def _training(view: RunView) -> str:
    rows = [
        [stage.name, stage.kind, made(stage), f"`{stage.artifact.manifest.key[:12]}`"]
        for stage in view.stages
        if stage.artifact
    ]
    note = "The key covers a stage's inputs, config and seed: equal keys give equal bytes."
    return f"## Stages\n\n{_table(['stage', 'kind', 'made', 'key'], rows)}\n{note}\n"


def _cost(view: RunView) -> str:
    total = total_cost(view)
    rows = [[a.stage, duration(a.manifest.cost.wall_s), *cost_cells(a.manifest.cost)] for a in view.artifacts]
    rows.append(["**all**", duration(total.wall_s), *cost_cells(total)])
    heading = ["stage", "wall time", "CPU time", "peak memory", "training and generation", "energy"]
    return (
        f"## Cost\n\n{_table(heading, rows)}\n"
        f"Energy is an estimate: CPU time at {WATTS_PER_CORE:g} W a core.\n"
    )


def _lineage(view: RunView) -> str:
    rows = [
        [artifact.stage, artifact.kind, f"`{artifact.manifest.digest}`", _inputs(artifact)]
        for artifact in view.artifacts
    ]
    return f"## Lineage\n\n{_table(['stage', 'artifact', 'digest (SHA-256)', 'made from'], rows)}"


def _inputs(artifact: Artifact) -> str:
    stages = dict.fromkeys(s for names in artifact.manifest.input_stages.values() for s in names)
    return ", ".join(stages) or "the source"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; a bar inside a cell is escaped."""
    lines = [list(headings), ["---"] * len(headings), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown and HTML take for nothing but text, on one line."""
    marks = "\\`*_{}[]<>#|&"
    return "".join(f"\\{c}" if c in marks else c for c in " ".join(text.split()))
