"""Runs the loop inside a stage: with the stage's data, checkpoints, displays, and the model at the end."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig, flops_per_token, parameter_count
from bessemer.model.float8 import multiply_in_float8, multiply_plainly
from bessemer.model.precision import has_native_bfloat16
from bessemer.model.transformer import AroundBlock, Transformer
from bessemer.model.weights import SavedWeights, Weights
from bessemer.objectives.base import Objective
from bessemer.runner.context import StageContext
from bessemer.tokenization.tokenizer import Tokenizer
from bessemer.training.average import WeightAverage
from bessemer.training.checkpoint import Checkpoints, Milestones
from bessemer.training.compiled import compiled, plain
from bessemer.training.config import TrainingConfig
from bessemer.training.early_stop import EarlyStop, EarlyStopConfig
from bessemer.training.finish import write_model, write_model_folder
from bessemer.training.incidents import INCIDENTS_NAME
from bessemer.training.loop import Plan, fit
from bessemer.training.memory import check_memory
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.ranks import Ranks, View
from bessemer.training.peak import Peak, peak_of
from bessemer.training.recompute import recompute
from bessemer.training.recycled_memory import recycled_memory
from bessemer.training.sinks import open_sinks
from bessemer.training.watch import Scale, TrainingWatch

ModelCheck = Callable[[View, int], dict[str, float]]
"""Given the model and the number of finished steps, values to log. Called on all ranks."""
Look = Callable[[View], None]
"""Given the model, before its first step."""


@dataclass(frozen=True)
class TrainingData:
    """What a stage trains on, by the number of a batch, from 0."""

    batches: Callable[[int], Sequence[Any]]
    """Micro-batches: a pure function of the number, called on another thread."""
    documents: Callable[[int], Sequence[str]]
    """Names of the documents in a batch, for incident reports."""
    boundaries: frozenset[int] = frozenset()
    """Steps at which the data changes its kind."""


def no_check(view: View, step: int) -> dict[str, float]:
    """For stages without a validation of their own."""
    return {}


def no_look(view: View) -> None:
    """For stages that ask nothing of the model before they train it."""


def train(
    model: Transformer,
    config: TrainingConfig,
    objective: Objective[Any],
    data: TrainingData,
    num_steps: int,
    context: StageContext,
    ranks: Ranks,
    *,
    tokenizer_folder: Path,
    tokenizer: Tokenizer,
    description: str,
    weights: Weights | None = None,
    look: Look = no_look,
    check: ModelCheck = no_check,
    early_stop: EarlyStop | None = None,
) -> dict[str, Any]:
    """Fit the model with a progress bar in tokens, write its folder to `context.output`; the metrics.

    Continues from the newest checkpoint of an attempt that was cut short. Called by all `ranks`, each with
    the whole model, or one without values that gets its part of `weights`, and its own share of the data; the
    first one writes.
    """
    ranks.check_shared(context.scratch)
    device, shape = model.device, model.config
    model.around_block = around_block(config, context)
    if config.float8 == "blocks":
        multiply_in_float8(model)
    trained = ranks.prepare(model, config.optimizer, config.sequence_length, weights)
    look(ranks.view(trained))

    def write_folder(held: Mapping[str, Tensor], folder: Path) -> None:
        write_model_folder(shape, held, folder, tokenizer_folder, tokenizer, context.stage)

    average = WeightAverage(trained, config.average) if config.average is not None else None

    def check_weights(step: int) -> dict[str, float]:
        """The stage's validation, of the weights that would be exported."""
        with average.applied() if average is not None else nullcontext():
            view = ranks.view(trained)
            values = ranks.agreed(check(view, step))
            if early_stop is not None:
                early_stop.saw(values, view.weights)
        return values

    milestones = None
    if config.every.milestone is not None:
        milestones = Milestones(context.output / "milestones", config.every.milestone)
    checkpoints = Checkpoints(
        context.scratch / "checkpoints",
        say=context.say,
        beside=write_folder,
        milestones=milestones,
        ranks=ranks,
        exported=config.average.export if config.average is not None else "average",
    )
    plan = Plan(
        objective=objective,
        batches=data.batches,
        documents=data.documents,
        boundaries=data.boundaries,
        num_steps=num_steps,
        optimizer=config.optimizer,
        schedule=config.schedule,
        checkpoint_every=config.every.checkpoint,
        guard=config.guard,
        incidents=context.output / INCIDENTS_NAME,
        average=average,
        say=context.say,
        memory={"early_stop": early_stop} if early_stop else {},
        keeps_best=early_stop is not None,
        should_stop=early_stop.should_stop if early_stop else lambda: False,
    )
    _say_precision(device, model.compute_dtype, context)
    run_name = str(context.run.get("name", context.stage))
    sink_names = config.report_to if ranks.is_main else ()
    sinks = open_sinks(sink_names, run_name, context.stage, context.output)
    scale = scale_of(config, shape, num_steps, peak_of(device, model.compute_dtype))
    with ExitStack() as stack:
        for sink in sinks:
            stack.callback(sink.close)
        progress = stack.enter_context(
            context.progress(description, scale.tokens_before(num_steps), "tokens")
        )
        watch = TrainingWatch(
            context, progress, scale, config.every.log, config.every.check, check_weights, sinks=sinks
        )
        stack.enter_context(recycled_memory())
        result = fit(trained, plan, checkpoints, watch, ranks)
    if average is not None:
        average.write_to_model()
    model.around_block = None
    if config.float8 == "blocks":
        multiply_plainly(model)
    if early_stop is not None:
        ranks.wait()  # until the first process has written the best weights
        ranks.fill(trained, SavedWeights(shape, early_stop.path), early_stop.shapes)
        watch.last_check = early_stop.best
        if result.last_step < num_steps:
            context.say(
                f"stopped after step {result.last_step:,}: no better validation in the last "
                f"{early_stop.since_best}; the best weights are kept"
            )
    difference = write_model(trained, ranks, context.output, tokenizer_folder, tokenizer, context.stage)
    ranks.wait()  # the others end with the first, so that one that ends early has failed
    num_tokens = scale.tokens_before(result.last_step)
    return {
        "parameters": parameter_count(shape),
        "steps": result.last_step,
        "tokens": num_tokens,
        "loss": watch.last_loss,
        **watch.last_check,
        "compute_dtype": str(model.compute_dtype).removeprefix("torch."),
        "skipped_steps": len(result.skipped_steps),
        "rewinds": result.num_rewinds,
        "tokens_per_s": (num_tokens - scale.tokens_before(result.first_step)) / max(result.wall_s, 1e-9),
        "flops": scale.flops_per_token * num_tokens,
        "reload_logit_difference": difference,
    }


def scale_of(config: TrainingConfig, shape: ModelConfig, num_steps: int, peak: Peak) -> Scale:
    """What turns steps into tokens and utilisation; `peak` is that of one process."""
    sizes, length = config.batch_sizes, config.sequence_length
    return Scale(
        num_steps,
        lambda step: sizes.rows_before(step) * length,
        flops_per_token(shape, length),
        config.parallel.world_size * peak.flops_per_s,
    )


def _say_precision(device: torch.device, compute_dtype: torch.dtype, context: StageContext) -> None:
    """Name the type of the products where it is not the one to expect on this hardware."""
    is_native = has_native_bfloat16(device)
    if compute_dtype == torch.bfloat16 and not is_native:
        context.say(
            "this processor has no bfloat16 arithmetic and emulates it a hundred times slower: "
            "leave compute_dtype at auto, or set it to float32"
        )
    elif compute_dtype == torch.float16 and device.type == "cpu":
        context.say(
            "float16 on a CPU is computed without the kernels that the other types have, many times slower: "
            "leave compute_dtype at auto"
        )
    elif compute_dtype == torch.float32 and not is_native:
        context.say("computing in float32: this processor has no bfloat16 arithmetic")


def early_stop_of(
    config: EarlyStopConfig | None, quantity: str, shape: ModelConfig, context: StageContext, ranks: Ranks
) -> EarlyStop | None:
    """What follows the validations of a stage, where its config asks for it."""
    if config is None:
        return None
    path, tensors = context.scratch / "best.safetensors", Transformer.without_values(shape).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    return EarlyStop(config, quantity, path, shapes, is_writer=ranks.is_main)


def around_block(config: TrainingConfig, context: StageContext) -> AroundBlock | None:
    """How training calls a block; None for as it is."""
    if config.compile == "off" and config.recompute.kind == "none":
        return None
    inner = compiled(context.say) if config.compile == "blocks" else plain
    return recompute(config.recompute, inner)


def check_start(
    config: TrainingConfig,
    shape: ModelConfig,
    tokenizer: Tokenizer,
    device: torch.device,
    context: StageContext,
) -> None:
    """Before weights are drawn or loaded: raises BessemerError where a model of this shape cannot be trained
    with this config, tokenizer and memory; says where memory may not do."""
    check_sequence_length(config.sequence_length, shape)
    check_embedding_rate(config.optimizer, shape)
    if tokenizer.vocab_size > shape.vocab_size:
        raise BessemerError(
            f"the tokenizer has {tokenizer.vocab_size:,} tokens and the model {shape.vocab_size:,} "
            "embeddings: they do not belong together; take both from one folder"
        )
    if note := check_memory(config, shape, device):
        context.say(note)


def check_sequence_length(sequence_length: int, shape: ModelConfig) -> None:
    """Raises BessemerError when rows are longer than the positions that the model knows."""
    if sequence_length > shape.max_position_embeddings:
        raise BessemerError(
            f"sequence_length {sequence_length} is more than the model's {shape.max_position_embeddings} "
            "positions: lower it, or pretrain with a larger model.max_position_embeddings"
        )


def check_embedding_rate(optimizer: OptimizerConfig, shape: ModelConfig) -> None:
    """Raises BessemerError when an embedding that is the output head too is given a rate of its own."""
    if optimizer.embedding_learning_rate is not None and shape.tie_word_embeddings:
        raise BessemerError(
            "optimizer.embedding_learning_rate is for an untied embedding, and this model's is the output "
            "head too, whose rate is optimizer.learning_rate: leave it out, or pretrain with "
            "model.tie_word_embeddings false"
        )


def best_device() -> torch.device:
    """This process's CUDA device when there is one (the first unless it was given another), else the CPU."""
    is_cuda = torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if is_cuda else torch.device("cpu")
