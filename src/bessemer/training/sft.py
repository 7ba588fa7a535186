"""The sft stage: the base model learns to answer, from conversations, on the assistant's tokens alone."""

import math
from pathlib import Path
from typing import Any

from pydantic import Field

from bessemer.config import Count
from bessemer.errors import BessemerError
from bessemer.formats.jsonl import read_jsonl
from bessemer.model.precision import resolve_dtype
from bessemer.model.transformer import Transformer
from bessemer.model.weights import FolderWeights
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.runner.context import StageContext
from bessemer.tokenization.chat import Rendered, render
from bessemer.tokenization.tokenizer import Tokenizer, load_tokenizer
from bessemer.training.batches import Batch, Row, rng, row_of_conversations, stack_rows
from bessemer.training.config import TrainingConfig
from bessemer.training.execute import TrainingData, best_device, check_start, train
from bessemer.training.joining import join
from bessemer.training.packing import PackedEpochs
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.parallel.ranks import Ranks

_JOINING = 1
"""Keeps the generator of joining apart from that of packing, whose keys are (seed, epoch)."""


class SftConfig(TrainingConfig):
    """How the model is tuned on conversations. Whole conversations are packed into rows."""

    epochs: float = Field(default=2.0, gt=0)
    """Passes over the conversations."""
    micro_batches: Count = Field(default=1, ge=1)
    """Parts that a step's batch is computed in; the result is the same. Or give `micro_batch_tokens`."""
    z_loss: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """As in `pretrain`: coefficient of the penalty on the softmax's divisor; 0: none."""
    join_share: float = Field(default=0.25, ge=0, lt=1)
    """Probability that a conversation continues the one packed before it, as a later turn: so that a
    model trained on single questions can answer the next one, too. Costs no tokens."""
    join_after: float = Field(default=0.6, ge=0, le=1)
    """Share of the steps that go by before joining begins: first what to say (docs/notebook.md)."""

    def _contradictions(self) -> list[str]:
        problems = super()._contradictions()
        if self.micro_batches > 1 and self.micro_batch_tokens is not None:
            problems.append("micro_batches and micro_batch_tokens are two ways to say the same: give one")
        return problems


def sft(config: SftConfig, context: StageContext) -> dict[str, Any]:
    """Tune the nearest model on the nearest conversations and write its folder."""
    return on_ranks(tune, config, context)


def tune(config: SftConfig, context: StageContext, ranks: Ranks) -> dict[str, Any]:
    """The work of `sft` in one of its processes."""
    source = context.input("model").folder
    tokenizer = load_tokenizer(source)
    rendered = read_conversations(context.input("conversations").folder, tokenizer)
    device = best_device()
    weights = FolderWeights(source)
    check_start(config, weights.config, tokenizer, device, context)
    dtype = resolve_dtype(config.compute_dtype, device)
    model = Transformer.without_values(weights.config, dtype, device)
    packed = PackedEpochs([len(r.token_ids) for r in rendered], config.sequence_length, context.seed)
    sizes = config.batch_sizes
    num_steps = sizes.steps_covering(math.ceil(packed.rows_per_epoch() * config.epochs))
    num_tokens = sum(len(r.token_ids) for r in rendered)
    supervised = sum(sum(r.loss_mask) for r in rendered)
    padding = 1 - num_tokens / (packed.rows_per_epoch() * config.sequence_length)
    context.say(
        f"{len(rendered):,} conversations, {num_tokens:,} tokens, "
        f"{supervised / num_tokens:.0%} of them learnt; "
        f"{num_steps:,} steps of {config.tokens_per_step:,} tokens, {padding:.1%} padding"
    )

    def row(number: int, join_share: float) -> Row:
        conversations = [rendered[item] for item in packed.row(number)]
        if join_share > 0:
            conversations = join(conversations, join_share, rng(context.seed, _JOINING, number))
        pairs = [(each.token_ids, each.loss_mask) for each in conversations]
        return row_of_conversations(pairs, config.sequence_length, tokenizer.padding_id)

    def batches(step: int) -> list[Batch]:
        join_share = config.join_share if step >= config.join_after * num_steps else 0.0
        share, numbers = ranks.share, sizes.numbers(step)
        rows = [row(number, join_share) for number in share.rows(numbers)]
        num_parts = max(
            share.num_parts(config.micro_batches), config.num_parts(share.most_rows(len(numbers)))
        )
        num_parts = share.fitting(num_parts, len(numbers))
        return [batch.to(device) for batch in stack_rows(rows).split(num_parts)]

    def documents(step: int) -> list[str]:
        return [f"conversation {item}" for number in sizes.numbers(step) for item in packed.row(number)]

    metrics = train(
        model,
        config,
        LanguageModeling(z_loss=config.z_loss),
        TrainingData(batches, documents),
        num_steps,
        context,
        ranks,
        tokenizer_folder=source,
        tokenizer=tokenizer,
        description="instruction tuning",
        weights=weights,
    )
    return {
        "conversations": len(rendered),
        "supervised_share": supervised / num_tokens,
        "padding_share": padding,
        **metrics,
    }


def read_conversations(folder: Path, tokenizer: Tokenizer) -> list[Rendered]:
    """Render every conversation of `conversations.jsonl`.

    Raises BessemerError, with the line, for anything but a conversation that something can be learnt from.
    """
    path = folder / "conversations.jsonl"
    rendered = []
    for number, row in enumerate(read_jsonl(path, required=("messages",)), start=1):
        try:
            result = render(tokenizer, row["messages"])
        except BessemerError as error:
            raise BessemerError(f"{path}:{number}: {error}") from None
        if not any(result.loss_mask):
            raise BessemerError(
                f"{path}:{number}: no assistant turn, so there is nothing to learn from; remove the line"
            )
        rendered.append(result)
    return rendered
