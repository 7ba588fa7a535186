"""The export stage: the final model as a folder to give away, with its card, a report and a summary."""

import json
from pathlib import Path
from typing import Any, Literal

import torch

from bessemer.config import Config
from bessemer.errors import BessemerError
from bessemer.export.card import model_card
from bessemer.export.report import REPORT_NAME, render_report
from bessemer.export.summary import summary_text
from bessemer.export.view import view_of_context
from bessemer.model.config import parameter_count
from bessemer.model.folder import check_reload, load_model, save_model
from bessemer.model.transformer import Transformer
from bessemer.runner.context import StageContext
from bessemer.runner.files import write_atomically
from bessemer.runner.summary import SUMMARY_NAME


class ExportConfig(Config):
    """What the exported folder is like."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the exported weights; bfloat16 halves the size and keeps 8 bits of each weight's precision."""
    license: str | None = None
    """License identifier for the model card, such as apache-2.0; the card says so when none is given."""


def export(config: ExportConfig, context: StageContext) -> dict[str, Any]:
    """Write the last model's folder with README.md, report.html and summary.txt.

    Proven when written: the folder is read back, and its logits must equal those of the source model
    (with its weights rounded to `config.dtype`). Raises BessemerError when they do not.
    """
    source = context.input("model")
    view = view_of_context(context)
    card = model_card(view, source, config.license, config.dtype)
    model = load_model(source.folder)
    dtype = getattr(torch, config.dtype)
    save_model(
        model,
        context.output,
        tokenizer_folder=source.folder,
        generation=_generation(source.folder),
        card=card,
        dtype=dtype,
    )
    difference_to_source = check_reload(model, context.output, seed=0)
    prove_equal(model, dtype, context.output)
    write_atomically(context.output / REPORT_NAME, render_report(view).encode("utf-8", "replace"))
    summary = summary_text(view, source.stage)
    write_atomically(context.output / SUMMARY_NAME, summary.encode("utf-8", "replace"))
    context.say(f"{source.stage} exported in {config.dtype}: read back, the logits are equal")
    return {
        "parameters": parameter_count(model.config),
        "dtype": config.dtype,
        "model_bytes": (context.output / "model.safetensors").stat().st_size,
        "reload_logit_difference": difference_to_source,
    }


@torch.no_grad()
def prove_equal(model: Transformer, dtype: torch.dtype, folder: Path) -> None:
    """Raise BessemerError unless the folder's logits are those of `model` rounded to `dtype` (in place)."""
    for parameter in model.parameters():
        parameter.copy_(parameter.to(dtype))
    difference = check_reload(model, folder, seed=0)
    if difference != 0.0:
        raise BessemerError(
            f"the exported folder {folder} gives logits that differ by {difference:.2e} from the source's: "
            "its weights are damaged or the disk is faulty; run again"
        )


def _generation(folder: Path) -> dict[str, Any]:
    """The source's generation_config.json. Raises BessemerError when it cannot be read."""
    path = folder / "generation_config.json"
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError) as error:
        raise BessemerError(f"{path} cannot be read ({error}): redo the stage that made it") from error
