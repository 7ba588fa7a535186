"""What processes of a pipeline send one another in a step: nothing but states, their gradients, and a tied
embedding's; and shards are gathered and reduced once, however many micro-batches there are."""

import pytest
import torch
from parallel_helpers import Collectives, run_ranks

from bessemer.model.kernels import torch_operations
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.optimizers import OptimizerConfig
from bessemer.training.parallel.equivalence_step import tiny_batches, tiny_config, tiny_model
from bessemer.training.parallel.layout import ParallelConfig, build_layout
from bessemer.training.parallel.together import Together

CPU = torch.device("cpu")
NUM_BATCHES = 4
LAYOUTS = {
    "1f1b": ParallelConfig(pipeline=2),
    "interleaved": ParallelConfig(pipeline=2, pipeline_schedule="interleaved"),
    "zero_bubble": ParallelConfig(pipeline=2, pipeline_schedule="zero_bubble"),
}
SHARDED = {"1f1b": ParallelConfig(pipeline=2, shard=2)}


def counted(rank: int, world_size: int, layouts, has_experts: bool) -> dict[str, dict[str, int]]:
    """By operation, of the passes of one step."""
    found = {}
    for name, config in layouts.items():
        ranks = Together(build_layout(config, world_size))
        batches = tiny_batches(2, CPU)[:NUM_BATCHES]
        ranks.prepare(
            tiny_model(tiny_config(2, has_experts=has_experts), CPU),
            OptimizerConfig(),
            batches[0].token_ids_BT.shape[1],
        )
        with torch_operations():
            ranks.gradients(LanguageModeling(), batches, NUM_BATCHES, 1.0)  # opens the connections
            with Collectives() as sent:
                ranks.gradients(LanguageModeling(), batches, NUM_BATCHES, 1.0)
        found[name] = dict(sent.counts)
    return found


@pytest.mark.parametrize("has_experts", [False, True], ids=["dense", "experts"])
def test_a_pipeline_sends_states_and_gradients_over_each_border_once_a_micro_batch(has_experts):
    """Borders between the two processes: one, three, and two of a V, whose ends lie on the first process, so
    that it has no copy of the tied embedding to add up. With experts, sums of their use travel beside."""
    borders = {"1f1b": 1, "interleaved": 3, "zero_bubble": 2}
    for found in run_ranks(2, counted, LAYOUTS, has_experts):
        for name, counts in found.items():
            tensors = 2 if has_experts else 1
            expected = borders[name] * NUM_BATCHES * tensors + (name != "zero_bubble")
            assert counts["send"] == counts["recv_"] == expected, (name, counts)
            # Of losses, told to all: sizes, then what they are.
            assert counts.keys() - {"send", "recv_"} == {"allgather_"}, name
            assert counts["allgather_"] == 2, name


def test_shards_of_a_pipeline_are_gathered_and_reduced_once_a_step():
    """Four layers on two processes: two blocks each, and what else a stage holds."""
    for found in run_ranks(4, counted, SHARDED, False):
        for name, counts in found.items():
            gathers = sum(n for kind, n in counts.items() if "allgather" in kind and kind != "allgather_")
            scatters = sum(n for kind, n in counts.items() if "reduce_scatter" in kind)
            assert (gathers, scatters) == (3, 3), (name, counts)
