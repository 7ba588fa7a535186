"""The layouts whose tables docs/parallel-memory.md shows."""

from large_models import EXPERTS_200, LLAMA_70B, LLAMA_405B

from bessemer.training.parallel.activation_memory import Tokens
from bessemer.training.parallel.layout import ParallelConfig

EXAMPLES = {
    "Llama 3 70B": (
        LLAMA_70B,
        ParallelConfig(pipeline=4, data=2, shard=16, tensor=8),
        Tokens(row=8192, rows=1, micro_batches=8),
    ),
    "Llama 3 70B, sharded alone": (
        LLAMA_70B,
        ParallelConfig(shard=1024),
        Tokens(row=8192, rows=1, recompute="full"),
    ),
    "Llama 3 405B": (
        LLAMA_405B,
        ParallelConfig(pipeline=16, shard=8, tensor=8, pipeline_schedule="zero_bubble"),
        Tokens(row=8192, rows=1, micro_batches=32, recompute="full"),
    ),
    "200 experts": (
        EXPERTS_200,
        ParallelConfig(pipeline=4, data=32, shard=8, expert=8),
        Tokens(row=8192, rows=1, micro_batches=8, recompute="full"),
    ),
}
