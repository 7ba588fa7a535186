"""Fused CPU kernels: one pass over memory where torch's operations need several.

Training small models on a CPU spends most of its time moving activations, not multiplying them. Each
module here holds one kernel, its backward, and the autograd function that calls them.
"""

from bessemer.model.kernels.choice import is_fused, torch_operations
from bessemer.model.kernels.cross_entropy import linear_cross_entropy
from bessemer.model.kernels.heads import fused_heads
from bessemer.model.kernels.rms_norm import fused_rms_norm
from bessemer.model.kernels.softmax import masked_softmax_, softmax_backward_, visible_spans
from bessemer.model.kernels.swiglu import fused_swiglu

__all__ = [
    "fused_heads",
    "fused_rms_norm",
    "fused_swiglu",
    "is_fused",
    "linear_cross_entropy",
    "masked_softmax_",
    "softmax_backward_",
    "torch_operations",
    "visible_spans",
]
