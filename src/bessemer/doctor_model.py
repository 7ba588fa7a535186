"""`bessemer doctor MODEL`: the faults that sit between weights, tokenizer, template and generation."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2.sandbox
import tokenizers
import torch
from safetensors import SafetensorError, safe_open

from bessemer.doctor import Check
from bessemer.errors import BessemerError
from bessemer.model.folder import check_reload, load_model

_REQUIRED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
_RESTORE = "take the folder whole from where it was made, or make it again with `bessemer run --from`"
_USER, _ANSWER = "How are you?", "Fine, thanks."


@dataclass(frozen=True)
class ModelFiles:
    """The texts of a model folder, read once."""

    folder: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tokenizer_config: Mapping[str, Any]
    template: str | None
    tokenizer: tokenizers.Tokenizer

    def token(self, role: str) -> str | None:
        """Text of the `eos_token`, `pad_token`, …; it may be written as an object with `content`."""
        value = self.tokenizer_config.get(role)
        return value.get("content") if isinstance(value, dict) else value


def examine_model(folder: Path) -> list[Check]:
    """Every check of a model folder; those that need readable files come only when these are there."""
    files, faults = _read_files(folder)
    if files is None:
        return faults
    checks: list[Callable[[ModelFiles], Check]] = [
        check_vocabulary,
        check_special_tokens,
        check_end_of_turn,
        check_padding,
        check_template,
        check_weights,
        check_logits,
    ]
    return [Check("files", "ok", str(folder)), *(check(files) for check in checks)]


def check_vocabulary(files: ModelFiles) -> Check:
    """Every token id has a row in the embedding."""
    size, rows = files.tokenizer.get_vocab_size(with_added_tokens=True), files.config.get("vocab_size", 0)
    detail = f"{size} tokens, {rows} rows of embedding"
    if size > rows:
        return Check("vocabulary", "fail", detail, f"they do not belong together: {_RESTORE}")
    return Check("vocabulary", "ok", detail)


def check_special_tokens(files: ModelFiles) -> Check:
    """Each special token is one id, when the tokenizer meets it as the template writes it."""
    names = [files.token(role) for role in ("bos_token", "eos_token", "pad_token")]
    names += files.tokenizer_config.get("additional_special_tokens", [])
    texts = list(dict.fromkeys(name for name in names if name))
    split = [text for text in texts if len(files.tokenizer.encode(text, add_special_tokens=False).ids) != 1]
    if split:
        detail = f"not a single token: {', '.join(split)}"
        return Check("special tokens", "fail", detail, "add them to tokenizer.json as special added tokens")
    return Check("special tokens", "ok", ", ".join(texts) or "none")


def check_end_of_turn(files: ModelFiles) -> Check:
    """Generation stops at the token that closes an assistant's turn in the template."""
    stops = stop_ids(files.generation)
    if files.template is None:
        return Check("end of turn", "warn", f"no chat template; generation stops at {stops}", _TEMPLATE_MEND)
    try:
        closing = _closing_ids(files)
    except jinja2.TemplateError as error:
        return Check("end of turn", "fail", f"the chat template does not render: {error}", _TEMPLATE_MEND)
    if not closing or closing[0] not in stops:
        closes = files.tokenizer.id_to_token(closing[0]) if closing else "nothing"
        detail = f"{closes!r} closes a turn, generation stops at {stops}: it would run on"
        return Check("end of turn", "fail", detail, "set eos_token_id in generation_config.json to its id")
    return Check("end of turn", "ok", f"{files.tokenizer.id_to_token(closing[0])} = {closing[0]}")


def check_padding(files: ModelFiles) -> Check:
    """Padding is not the end token: a model trained so learns to ignore its end."""
    text = files.token("pad_token")
    pad = files.generation.get("pad_token_id", files.tokenizer.token_to_id(text) if text else None)
    if pad is None:
        return Check("padding", "warn", "no pad token", "set a pad_token other than eos_token")
    if pad in stop_ids(files.generation):
        return Check("padding", "fail", f"pad id {pad} is also an end id", "give padding a token of its own")
    return Check("padding", "ok", f"{files.tokenizer.id_to_token(pad)} = {pad}")


def check_template(files: ModelFiles) -> Check:
    """Two turns render with every text in order, and a prompt is the beginning of its conversation."""
    if files.template is None:
        return Check("chat template", "warn", "none", _TEMPLATE_MEND)
    question = [{"role": "user", "content": _USER}]
    answered = [*question, {"role": "assistant", "content": _ANSWER}]
    try:
        prompt = render_template(files, question, add_generation_prompt=True)
        whole = render_template(files, [*answered, *answered])
    except jinja2.TemplateError as error:
        return Check("chat template", "fail", f"does not render: {error}", _TEMPLATE_MEND)
    if not whole.startswith(prompt + _ANSWER):
        detail = "the prompt it gives for an answer is not how a conversation begins"
        return Check("chat template", "fail", detail, _TEMPLATE_MEND)
    if whole.count(_USER) != 2 or whole.count(_ANSWER) != 2:
        return Check("chat template", "fail", "two turns do not both appear", _TEMPLATE_MEND)
    return Check("chat template", "ok", "renders a conversation of two turns")


def check_weights(files: ModelFiles) -> Check:
    """Every weight is a finite number."""
    count, bad = 0, []
    try:
        for path in sorted(files.folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                for name in sorted(file.keys()):
                    tensor = file.get_tensor(name)
                    count += tensor.numel()
                    if not bool(torch.isfinite(tensor).all()):
                        bad.append(name)
    except SafetensorError as error:
        return Check("weights", "fail", f"{files.folder} has a damaged file: {error}", _RESTORE)
    if bad or not count:
        detail = f"not finite: {', '.join(bad)}" if bad else "no safetensors file"
        return Check("weights", "fail", detail, f"training went wrong or a file is missing: {_RESTORE}")
    return Check("weights", "ok", f"{count:,} numbers, all finite")


def check_logits(files: ModelFiles) -> Check:
    """The folder loads, and loaded twice it gives the same logits."""
    try:
        difference = check_reload(load_model(files.folder), files.folder, seed=0)
    except BessemerError as error:
        return Check("logits", "fail", str(error), _RESTORE)
    if difference != 0.0:
        return Check("logits", "fail", f"two loads differ by up to {difference:.3g}", _RESTORE)
    return Check("logits", "ok", "equal after a reload")


def stop_ids(generation: Mapping[str, Any]) -> list[int]:
    """Ids at which generation stops; the file has one, a list, or none."""
    value = generation.get("eos_token_id")
    return list(value) if isinstance(value, list) else [] if value is None else [value]


def render_template(files: ModelFiles, messages: list[dict[str, str]], **options: Any) -> str:
    """Render the folder's chat template as transformers does, in a sandbox: it is another's code."""
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = _raise_template_error
    template = environment.from_string(files.template or "")
    names = {role: files.token(role) or "" for role in ("bos_token", "eos_token", "pad_token")}
    return template.render(messages=messages, **{"add_generation_prompt": False} | options, **names)


def _closing_ids(files: ModelFiles) -> list[int]:
    """Token ids of what the template writes right after an assistant's text."""
    messages = [{"role": "user", "content": _USER}, {"role": "assistant", "content": _ANSWER}]
    after = render_template(files, messages).rpartition(_ANSWER)[2]
    return files.tokenizer.encode(after, add_special_tokens=False).ids


def _raise_template_error(message: str) -> None:
    raise jinja2.TemplateError(message)


def _read_files(folder: Path) -> tuple[ModelFiles | None, list[Check]]:
    faults: list[Check] = []
    texts: dict[str, Any] = {}
    for name in _REQUIRED:
        try:
            texts[name] = json.loads((folder / name).read_bytes())
        except FileNotFoundError:
            faults.append(Check(name, "fail", "missing", _RESTORE))
        except ValueError as error:
            faults.append(Check(name, "fail", f"is not JSON: {error}", _RESTORE))
    if faults:
        return None, faults
    try:
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(texts["tokenizer.json"]))
    except Exception as error:  # the library raises bare Exception for a malformed file
        return None, [Check("tokenizer.json", "fail", f"is not a tokenizer: {error}", _RESTORE)]
    template_file = folder / "chat_template.jinja"
    template = texts["tokenizer_config.json"].get("chat_template")
    if template_file.is_file():
        template = template_file.read_text(encoding="utf-8")
    return (
        ModelFiles(
            folder,
            texts["config.json"],
            texts["generation_config.json"],
            texts["tokenizer_config.json"],
            template,
            tokenizer,
        ),
        [],
    )


_TEMPLATE_MEND = "put a Jinja chat_template into tokenizer_config.json; stages write one that fits"
