"""The nearest (semi-)orthogonal matrix, by products alone: what Muon makes of a momentum.

An odd polynomial of a matrix is that polynomial of its singular values. A few quintics, one after the
other, bring them all near 1 (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/).

Shapes: N matrices of M x K.
"""

import torch
from torch import Tensor

from bessemer.model.precision import resolve_dtype

SMALLEST = 3e-3
"""Singular values from here to 1 end within 0.21 of 1; smaller ones grow 290-fold."""

# Each quintic is the best uniform approximation of 1 on the interval that the one before it leaves
# (Amsel et al. 2025, Polar Express, arXiv:2505.16932, section 3), starting from [SMALLEST, 1], and all but
# the last look 1 % beyond their interval, for rounding (section 3.4). Four of them do what Jordan's five do.
_QUINTICS = (
    (8.3007, -24.0375, 17.4661),
    (4.0059, -2.9253, 0.5424),
    (3.4840, -2.5614, 0.5024),
    (2.5153, -1.8615, 0.4425),
)


def orthogonalize(matrices_NMK: Tensor) -> Tensor:
    """Approximately replace each matrix U·S·Vᵀ by U·Vᵀ, in bfloat16, or in float32 where the hardware has
    no bfloat16.

    Shape [N, M, K] in and out: N matrices of one shape at once, which costs one launch, not N.
    """
    tall = matrices_NMK.size(1) > matrices_NMK.size(2)
    x = matrices_NMK.mT if tall else matrices_NMK
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    x = x.to(resolve_dtype("auto", x.device)).contiguous()
    # The squares of singular values need float32. By count of products it is the cheaper way from 3 : 2 on.
    is_narrow = x.dtype == torch.float32 and 2 * x.size(2) > 3 * x.size(1)
    x = _by_gram_matrix(x) if is_narrow else _by_matrix(x)
    return (x.mT if tall else x).to(matrices_NMK.dtype)


def _by_matrix(x_NMK: Tensor) -> Tensor:
    """X ← (a + b G + c G²) X with G = X Xᵀ, for each quintic."""
    for a, b, c in _QUINTICS:
        gram_NMM = x_NMK @ x_NMK.mT
        factor_NMM = torch.baddbmm(gram_NMM, gram_NMM, gram_NMM, beta=b, alpha=c)
        x_NMK = torch.baddbmm(x_NMK, factor_NMM, x_NMK, beta=a)
    return x_NMK


def _by_gram_matrix(x_NMK: Tensor) -> Tensor:
    """The same, of M x M matrices until the last product: with P = a + b G + c G², the next G is P G P, and
    the product of all P times X is the result."""
    gram_NMM = x_NMK @ x_NMK.mT
    product_NMM = None
    for number, (a, b, c) in enumerate(_QUINTICS, start=1):
        factor_NMM = torch.baddbmm(gram_NMM, gram_NMM, gram_NMM, beta=b, alpha=c)
        factor_NMM.diagonal(dim1=1, dim2=2).add_(a)
        product_NMM = factor_NMM if product_NMM is None else factor_NMM @ product_NMM
        if number < len(_QUINTICS):
            gram_NMM = factor_NMM @ gram_NMM @ factor_NMM
    assert product_NMM is not None
    return product_NMM @ x_NMK
