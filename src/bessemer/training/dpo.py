"""The dpo stage: the model moves towards chosen answers and away from rejected ones."""

import math
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from bessemer.errors import BessemerError
from bessemer.evaluation.scores import Evaluate, document_log_probabilities
from bessemer.formats.jsonl import read_jsonl
from bessemer.model.precision import resolve_dtype
from bessemer.model.transformer import Transformer
from bessemer.model.weights import FolderWeights
from bessemer.objectives.preference import DirectPreference, PairBatch
from bessemer.runner.context import StageContext
from bessemer.runner.files import write_atomically
from bessemer.tokenization.chat import Rendered, render
from bessemer.tokenization.tokenizer import Tokenizer, load_tokenizer
from bessemer.training.batches import row_of_conversations, stack_rows
from bessemer.training.config import Cadence, TrainingConfig
from bessemer.training.execute import TrainingData, best_device, check_start, train
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.packing import PackedEpochs
from bessemer.training.parallel.launch import on_ranks
from bessemer.training.parallel.ranks import Ranks, View
from bessemer.training.schedules import ScheduleConfig

Pair = tuple[Rendered, Rendered]
"""(chosen, rejected)"""


class DpoConfig(TrainingConfig):
    """How preferences are learnt. Both answers of a pair lie in one row."""

    beta: float = Field(default=0.1, gt=0)
    """Strength of the pull towards the reference model; smaller lets the policy move further."""
    chosen_weight: float = Field(default=1.0, ge=0)
    """Weight of the chosen answers' likelihood beside the DPO loss (RPO); 0 is plain DPO."""
    epochs: float = Field(default=1.0, gt=0)
    """Passes over the pairs."""
    optimizer: OptimizerConfig = OptimizerConfig(kind="adamw", learning_rate=1e-4)
    """Optimizer and peak learning rates."""
    schedule: ScheduleConfig = ScheduleConfig(shape="linear", warmup=0.1)
    """Shape of the learning rate over the run."""
    every: Cadence = Cadence(log=5)
    """Steps between metrics and checkpoints."""

    def _contradictions(self) -> list[str]:
        divided = [way for way in ("context", "tensor", "pipeline") if getattr(self.parallel, way) > 1]
        return super()._contradictions() + [
            f"parallel.{way} works on rows of tokens, and preferences compare whole answers: set it to 1, "
            "and use parallel.data or parallel.shard"
            for way in divided
        ]


class PairRows:
    """Batches of packed pairs; a pure function of (seed, step)."""

    def __init__(
        self, pairs: list[Pair], sequence_length: int, padding_id: int, seed: int, device: torch.device
    ) -> None:
        """Raises BessemerError for a pair that does not fit a row."""
        self._pairs = pairs
        self._length = sequence_length
        self._padding_id = padding_id
        self._device = device
        lengths = [len(chosen.token_ids) + len(rejected.token_ids) for chosen, rejected in pairs]
        self.packed = PackedEpochs(lengths, sequence_length, seed)

    def batch(self, rows: list[list[int]], references: np.ndarray | None) -> PairBatch:
        """Rows of pair numbers as a batch; `references` is [pairs, 2] float32, zeros when None."""
        num_documents = 2 * max(len(row) for row in rows) + 1  # padding is the last document
        cells, chosen_slots = [], []
        for number, row in enumerate(rows):
            documents = [side for pair in row for side in self._pairs[pair]]
            cells.append(
                row_of_conversations(
                    [(d.token_ids, d.loss_mask) for d in documents], self._length, self._padding_id
                )
            )
            chosen_slots += [number * num_documents + 2 * place for place in range(len(row))]
        items = [pair for row in rows for pair in row]
        known = np.zeros((len(items), 2), np.float32) if references is None else references[items]
        chosen = torch.tensor(chosen_slots, device=self._device)
        return PairBatch(
            batch=stack_rows(cells).to(self._device),
            num_documents=num_documents,
            chosen_slots_P=chosen,
            rejected_slots_P=chosen + 1,
            reference_chosen_P=torch.from_numpy(known[:, 0].copy()).to(self._device),
            reference_rejected_P=torch.from_numpy(known[:, 1].copy()).to(self._device),
            chosen_tokens_P=torch.tensor(
                [sum(self._pairs[item][0].loss_mask) for item in items], device=self._device
            ),
        )

    def step_rows(self, numbers: range) -> list[list[int]]:
        """Pair numbers of rows."""
        return [self.packed.row(row) for row in numbers]


def dpo(config: DpoConfig, context: StageContext) -> dict[str, Any]:
    """Train the nearest model on the nearest preferences; it is its own reference at the start."""
    return on_ranks(prefer_chosen, config, context)


def prefer_chosen(config: DpoConfig, context: StageContext, ranks: Ranks) -> dict[str, Any]:
    """The work of `dpo` in one of its processes."""
    source = context.input("model").folder
    tokenizer = load_tokenizer(source)
    pairs = read_pairs(context.input("preferences").folder / "preferences.jsonl", tokenizer)
    device = best_device()
    weights = FolderWeights(source)
    check_start(config, weights.config, tokenizer, device, context)
    dtype = resolve_dtype(config.compute_dtype, device)
    model = Transformer.without_values(weights.config, dtype, device)
    rows = PairRows(pairs, config.sequence_length, tokenizer.padding_id, context.seed, device)
    references = np.zeros((len(pairs), 2), np.float32)

    def look(view: View) -> None:
        """Before the first batch is made."""
        cache = context.scratch / "reference.npy"
        references[:] = reference_log_probabilities(view.evaluate, pairs, rows, cache, context, ranks)

    sizes = config.batch_sizes
    num_steps = sizes.steps_covering(math.ceil(rows.packed.rows_per_epoch() * config.epochs))
    context.say(
        f"{len(pairs):,} pairs, {num_steps:,} steps of {config.tokens_per_step:,} tokens, beta {config.beta}"
    )

    def batches(step: int) -> list[PairBatch]:
        chosen = rows.step_rows(ranks.share.rows(sizes.numbers(step)))
        size = -(-len(chosen) // config.num_parts(len(chosen)))
        return [rows.batch(chosen[at : at + size], references) for at in range(0, len(chosen), size)]

    def documents(step: int) -> list[str]:
        return [f"pair {item}" for row in rows.step_rows(sizes.numbers(step)) for item in row]

    metrics = train(
        model,
        config,
        DirectPreference(config.beta, config.chosen_weight),
        TrainingData(batches, documents),
        num_steps,
        context,
        ranks,
        tokenizer_folder=source,
        tokenizer=tokenizer,
        description="preference optimisation",
        weights=weights,
        look=look,
    )
    return {"pairs": len(pairs), **metrics}


def read_pairs(path: Path, tokenizer: Tokenizer) -> list[Pair]:
    """Render every pair of a preferences file. Raises BessemerError with the line of a bad one."""
    pairs = []
    for number, row in enumerate(read_jsonl(path, required=("prompt", "chosen", "rejected")), start=1):
        try:
            chosen, rejected = (
                _answered(tokenizer, row["prompt"], row[side]) for side in ("chosen", "rejected")
            )
        except BessemerError as error:
            raise BessemerError(f"{path}:{number}: {error}") from None
        pairs.append((chosen, rejected))
    return pairs


def _answered(tokenizer: Tokenizer, prompt: Any, answer: Any) -> Rendered:
    """A prompt with its answer; only the answer's assistant turns are scored."""
    if not isinstance(prompt, list) or not isinstance(answer, list):
        raise BessemerError("prompt, chosen and rejected must be lists of messages")
    asked, whole = render(tokenizer, prompt), render(tokenizer, [*prompt, *answer])
    scored = [*([False] * len(asked.loss_mask)), *whole.loss_mask[len(asked.loss_mask) :]]
    if not any(scored):
        raise BessemerError("chosen and rejected must each hold an assistant turn")
    return Rendered(whole.token_ids, scored)


def reference_log_probabilities(
    evaluate: Evaluate, pairs: list[Pair], rows: PairRows, cache: Path, context: StageContext, ranks: Ranks
) -> np.ndarray:
    """Summed log-probabilities [pairs, 2] float32 of both answers under the model as it starts.

    Computed once, in the very rows of the first epoch, and cached: a resumed run must not take the
    half-trained policy for the reference.
    """
    if ranks.agreed(cache.exists()):
        return np.load(cache, allow_pickle=False)
    values = np.zeros((len(pairs), 2), np.float32)
    num_rows = rows.packed.rows_per_epoch()
    with context.progress("reference log-probabilities", num_rows, "rows") as progress:
        for start in range(0, num_rows, 8):
            numbers = [rows.packed.row(row) for row in range(start, min(start + 8, num_rows))]
            batch = rows.batch(numbers, None)
            scores = document_log_probabilities(batch.num_documents)
            sums = evaluate(scores, [batch.batch])[0].flatten()
            items = [item for row in numbers for item in row]
            values[items, 0] = sums[batch.chosen_slots_P].cpu().numpy()
            values[items, 1] = sums[batch.rejected_slots_P].cpu().numpy()
            progress.advance(len(numbers))
    ranks.wait()  # until none looks for the file any more
    if ranks.is_main:
        write_atomically(cache, _npy_bytes(values))
    return values


def _npy_bytes(array: np.ndarray) -> bytes:
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()
