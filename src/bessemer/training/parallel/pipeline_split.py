"""How many consecutive layers each stage of a pipeline holds.

A pipeline runs at the pace of its slowest stage, so the split is the one whose most expensive stage is
cheapest. The output head stands beside the last layers and costs as much as several of them where the
vocabulary is large: the last stage then holds fewer.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import accumulate, pairwise

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig, head_flops_per_token, layer_flops_per_token


def balanced_split(config: ModelConfig, num_stages: int, context: int) -> tuple[int, ...]:
    """Layers of each stage, balanced by the operations of training on one token of rows of `context` tokens.

    The embedding is a look-up and costs nothing beside products. Blocks for future tokens, each with a pass
    through the head, stand with the last stage.
    """
    layers = range(config.num_hidden_layers)
    costs = [layer_flops_per_token(config, layer, context) for layer in layers]
    head = head_flops_per_token(config)
    join = 12.0 * config.hidden_size**2  # [D, 2 D], times 6
    last = head + config.future_tokens * (costs[-1] + head + join)
    return split_layers(tuple(costs), num_stages, last=last)


@cache
def split_layers(
    costs: tuple[float, ...], num_stages: int, first: float = 0.0, last: float = 0.0
) -> tuple[int, ...]:
    """Layers of each stage, at least one, so that the most expensive stage is as cheap as can be.

    `costs` are those of the layers, in any unit; `first` and `last` those of what else the outer stages do.
    Of the splits that are best by that, the most even one: the least sum of squares.
    """
    check_split(num_stages, len(costs))
    sums = list(accumulate(costs, initial=0.0))

    def cost(stage: int, start: int, stop: int) -> float:
        ends = first * (stage == 0) + last * (stage == num_stages - 1)
        return sums[stop] - sums[start] + ends

    highest = _best_split(len(costs), num_stages, cost, max)[0]
    # Sums in another order may round up.
    limit = highest * (1 + 1e-9)

    def add_square(total: float, cost: float) -> float:
        return total + cost * cost if cost <= limit else float("inf")

    return _best_split(len(costs), num_stages, cost, add_square)[1]


def check_split(num_stages: int, num_layers: int, counts: Sequence[int] | None = None) -> None:
    """Raises BessemerError when there are too few layers, or `counts` are no split of them."""
    if num_stages > num_layers:
        raise BessemerError(
            f"a pipeline of {num_stages} stages needs as many layers, but the model has {num_layers}: use at "
            f"most {num_layers} stages (schedules interleaved and zero_bubble have two for each process)"
        )
    if counts is None:
        return
    if len(counts) != num_stages or sum(counts) != num_layers or min(counts) < 1:
        raise BessemerError(
            f"layers of the stages are given as {list(counts)}: {num_stages} numbers above zero whose sum is "
            f"{num_layers} would fit"
        )


def layer_ranges(counts: Sequence[int]) -> list[range]:
    """The layers of each stage."""
    return [range(start, stop) for start, stop in pairwise(accumulate(counts, initial=0))]


def _best_split(
    num_layers: int,
    num_stages: int,
    cost: Callable[[int, int, int], float],
    join: Callable[[float, float], float],
) -> tuple[float, tuple[int, ...]]:
    """The least value and its layers by stage, over all splits; `join` adds the cost of one more stage."""
    best: dict[int, tuple[float, tuple[int, ...]]] = {0: (0.0, ())}
    for stage in range(num_stages):
        stops = range(stage + 1, num_layers - (num_stages - stage - 1) + 1)
        best = {
            stop: min(
                (join(value, cost(stage, start, stop)), (*counts, stop - start))
                for start, (value, counts) in best.items()
                if start < stop
            )
            for stop in stops
        }
    return best[num_layers]
