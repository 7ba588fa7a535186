"""What a process keeps for the backward pass: the tensors that autograd saves, counted layer by layer.

The method is that of Korthikanti et al. 2022 ("Reducing Activation Recomputation in Large Transformer
Models", section 4), for the layers here: RMSNorm keeps its input and a number a token, SwiGLU its input,
a product its input and, where parameters are cast, the cast matrix; the head keeps its logits up to a limit.
Masks, which layers share, and what a batch itself holds are left out.

Legend: n tokens of this process between matrices and N inside them (N = n unless tensors are divided), S
tokens sent to experts, D hidden, H query and K key/value heads, E head dimension, F feed-forward width, V
vocabulary, X experts; i bytes of a number in the compute dtype.
"""

from dataclasses import dataclass
from math import prod
from typing import Literal

from bessemer.model.config import MixtureConfig, ModelConfig
from bessemer.objectives.linear_cross_entropy import LARGEST_LOGITS_BYTES
from bessemer.training.parallel.layout import ParallelConfig
from bessemer.training.parallel.shapes import Place, block_shapes, has_ends, held_layers

AttentionKind = Literal["explicit", "fused"]


@dataclass(frozen=True)
class Tokens:
    """The tokens of a step, and how they are computed on."""

    row: int
    """Tokens of a row, whole."""
    rows: int
    """Of a micro-batch on one process."""
    micro_batches: int = 1
    """Of a step on one process."""
    item: int = 2
    """Bytes of a number in the compute dtype, i."""
    attention: AttentionKind = "fused"
    """explicit: probabilities are stored, the path of short rows on a CPU. fused: not (Dao 2023,
    FlashAttention-2): the path of GPUs."""
    score_area: int | None = None
    """Scores of a row and head that `explicit` stores; default: the square of the row."""
    recompute: Literal["none", "full"] = "none"
    """full: only what enters a layer is kept, and one layer at a time is computed again."""


def block_activations(config: ModelConfig, layer: int, parallel: ParallelConfig, tokens: Tokens) -> int:
    """Bytes that a layer keeps of one micro-batch."""
    assert config.family == "llama", "only the Llama family is counted"
    item, split = tokens.item, parallel.tensor
    inside = tokens.rows * tokens.row // parallel.context  # N
    between = inside // split  # n
    heads = -(-config.num_attention_heads // split)
    kv_heads = -(-config.num_key_value_heads // split)
    width = config.head_dim
    # Each norm: its input and 1 / rms. Its output is what products read: all tokens, gathered.
    norms = 2 * (between * config.hidden_size * item + between * 4)
    read = inside * config.hidden_size * item
    qkv = inside * (heads + 2 * kv_heads) * width * item
    if tokens.attention == "explicit":
        # q, k and v apart from their projection, and 1 / rms of each head, kept with or without a norm.
        operands = qkv + inside * (heads + kv_heads) * 4
        scores = heads * tokens.rows * (tokens.score_area or tokens.row**2) * item // parallel.context
    else:
        operands = inside * (heads + kv_heads) * (width * item + (4 if config.qk_norm else 0))
        scores = inside * heads * 4  # the logarithms of the softmax's sums
    if parallel.context > 1 and parallel.context_kind == "gather":
        # Keys and values of the whole row in place of one's own.
        operands += (parallel.context - 1) * inside * 2 * kv_heads * width * item
    out = inside * heads * width * item
    attention = norms + read + qkv + operands + scores + out
    casts = _cast_bytes(config, layer, parallel, item)
    if config.mixture is not None and config.is_mixture(layer):
        return (
            attention + casts + _mixture_activations(config, config.mixture, between, inside, parallel, item)
        )
    return attention + casts + read + 3 * inside * -(-config.intermediate_size // split) * item


def _mixture_activations(
    config: ModelConfig,
    mixture: MixtureConfig,
    between: int,
    inside: int,
    parallel: ParallelConfig,
    item: int,
) -> int:
    """Of a mixture in place of a feed-forward part. Sent evenly, a process has as many tokens for its experts
    as it sends to others'."""
    hidden, split = config.hidden_size, parallel.tensor
    sent = inside * mixture.experts_per_token  # S
    width, shared = -(-mixture.expert_size // split), -(-mixture.shared_size // split)
    # The router: its float32 input, the softmax, the weights before and after division, the choice.
    router = between * (hidden + mixture.num_experts) * 4
    weights = between * mixture.experts_per_token * (4 + 8) + between * 4
    # Experts: their input, gate and up, SwiGLU's output, the output before it is weighted, and three
    # orders of tokens and a weight each.
    experts = sent * (2 * hidden + 3 * width) * item + sent * (3 * 8 + item)
    if not shared:
        return router + weights + experts
    # In float32 the expert that all share reads what the router reads.
    reads_alike = item == 4 and split == 1
    common = inside * (3 * shared + (0 if reads_alike else hidden)) * item
    gate = inside * (hidden + 1) * item if mixture.scores == "softmax" else 0
    return router + weights + experts + common + gate


def _cast_bytes(config: ModelConfig, layer: int, parallel: ParallelConfig, item: int) -> int:
    """Matrices in the compute dtype, of one layer and micro-batch: products keep what they multiplied by."""
    if item == 4:
        return 0
    total = 0
    for name, shape in block_shapes(config, layer).items():
        is_expert = name.startswith("mixture.") and len(shape) == 3
        if len(shape) >= 2 and not name.endswith("router"):
            total += prod(shape) // parallel.tensor // (parallel.expert if is_expert else 1)
    return total * item


def head_activations(config: ModelConfig, parallel: ParallelConfig, tokens: Tokens) -> int:
    """Bytes that the final norm, the head and the loss keep of one micro-batch, all tokens supervised."""
    item = tokens.item
    inside = tokens.rows * tokens.row // parallel.context
    between, rows = inside // parallel.tensor, -(-config.vocab_size // parallel.tensor)
    norm = between * (config.hidden_size * item + 4) + inside * config.hidden_size * item
    logits = inside * rows * item
    if logits <= LARGEST_LOGITS_BYTES:
        cast = rows * config.hidden_size * item if item < 4 else 0
        return norm + logits + cast
    # Chunk by chunk, with the gradients of the states and of the head computed at once.
    return (
        between * (config.hidden_size * item + 4)
        + inside * config.hidden_size * item
        + (rows * config.hidden_size * 4)
    )


def pipeline_activations(config: ModelConfig, parallel: ParallelConfig, place: Place, tokens: Tokens) -> int:
    """Bytes that a process keeps at most, over all micro-batches under way."""
    counts, kept = _peak(config, parallel, place, tokens)
    total = sum(count * size for count, size in zip(counts, kept, strict=True))
    if tokens.recompute == "full":
        layers = (layer for layers in held_layers(config, parallel, place, tokens.row) for layer in layers)
        total += max(block_activations(config, layer, parallel, tokens) for layer in layers)
    return total


def pipeline_buffers(config: ModelConfig, parallel: ParallelConfig, place: Place, tokens: Tokens) -> int:
    """Bytes that hidden states are received in, and their gradients: torch's schedules have one buffer for
    each micro-batch and stage. The states of micro-batches under way are among the activations."""
    if parallel.pipeline == 1:
        return 0
    is_first, is_last = has_ends(parallel, place)
    counts, _ = _peak(config, parallel, place, tokens)
    states = sum(tokens.micro_batches - count for count in counts[is_first:])
    gradients = tokens.micro_batches * (len(counts) - is_last)
    return (states + gradients) * _entering(config, parallel, tokens)


def _peak(
    config: ModelConfig, parallel: ParallelConfig, place: Place, tokens: Tokens
) -> tuple[tuple[int, ...], list[int]]:
    """For each stage of the process: micro-batches under way when most is kept, and bytes kept of each."""
    kept = []
    for layers in held_layers(config, parallel, place, tokens.row):
        of_layer = [
            block_activations(config, layer, parallel, tokens)
            if tokens.recompute == "none"
            else _entering(config, parallel, tokens)
            for layer in layers
        ]
        kept.append(sum(of_layer) + _angles(config, parallel, tokens))
    if has_ends(parallel, place)[1]:
        kept[-1] += head_activations(config, parallel, tokens)
    under_way = most_under_way(parallel, place.pipeline, tokens.micro_batches)
    best = max(
        under_way, key=lambda counts: sum(count * size for count, size in zip(counts, kept, strict=True))
    )
    return best, kept


def _angles(config: ModelConfig, parallel: ParallelConfig, tokens: Tokens) -> int:
    """The cosines and sines of each token's position, which the layers of a stage share."""
    inside = tokens.rows * tokens.row // parallel.context
    return 2 * inside * config.head_dim * tokens.item


def _entering(config: ModelConfig, parallel: ParallelConfig, tokens: Tokens) -> int:
    """The hidden states of one micro-batch between layers."""
    between = tokens.rows * tokens.row // parallel.context // parallel.tensor
    return between * config.hidden_size * tokens.item


def most_under_way(parallel: ParallelConfig, process: int, micro_batches: int) -> list[tuple[int, ...]]:
    """How many micro-batches the process has gone forward with and not yet back, by its stages in ascending
    order, each time that there are most of them.

    1f1b: P - r (Narayanan et al. 2021, section 2.2.1). interleaved: two stages, forwards in rounds (ibid.,
    section 2.2.2). zero_bubble: half as many layers each, 2 P together on every process (Qi et al. 2023,
    section 6).
    """
    processes, rest = parallel.pipeline, parallel.pipeline - process
    match parallel.pipeline_schedule:
        case "1f1b":
            return [(min(micro_batches, rest),)]
        case "zero_bubble":
            late = min(micro_batches, 2 * processes - process - 1)
            return [(late, min(micro_batches, process + 1))]
        case "interleaved":
            round_size = micro_batches // max(1, micro_batches // processes)
            warmup = min(round_size + 2 * (rest - 1), 2 * micro_batches)
            return _interleaved(round_size, warmup, micro_batches)


def _interleaved(round_size: int, warmup: int, micro_batches: int) -> list[tuple[int, ...]]:
    """The counts after each forward from the end of the warm-up on: then each is followed by a backward."""
    forward = [step // round_size % 2 for step in range(2 * micro_batches)]
    backward = [1 - stage for stage in forward]
    found = []
    counts = [forward[:warmup].count(0), forward[:warmup].count(1)]
    found.append(tuple(counts))
    for step in range(warmup, 2 * micro_batches):
        counts[forward[step]] += 1
        found.append(tuple(counts))
        counts[backward[step - warmup]] -= 1
    return found
