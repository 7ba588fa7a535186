import numpy as np
import pytest
import torch

from bessemer.training import orthogonalize as module
from bessemer.training.orthogonalize import SMALLEST, orthogonalize

BAND = (0.77, 1.23)
"""Where singular values from `SMALLEST` to 1 end, rounding to bfloat16 included."""


def random_matrices(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 12, 40), (2, 40, 12), (1, 64, 64)])
def test_singular_values_end_within_the_known_band(shape):
    u, _, vh = torch.linalg.svd(random_matrices(*shape), full_matrices=False)
    spread = torch.logspace(0, -1.3, u.shape[-1])  # singular values over a range of twenty
    found = orthogonalize(u * spread @ vh)
    values = torch.linalg.svdvals(found)
    assert found.shape == shape
    assert BAND[0] < float(values.min()) <= float(values.max()) < BAND[1]


@pytest.mark.parametrize("shape", [(2, 16, 16), (2, 12, 40), (2, 40, 12)])
def test_the_direction_is_that_of_the_nearest_orthogonal_matrix(shape):
    u, _, vh = torch.linalg.svd(random_matrices(*shape, seed=1), full_matrices=False)
    spread = torch.logspace(0, -1, u.shape[-1])
    exact, found = u @ vh, orthogonalize(u * spread @ vh)
    cosine = (exact * found).sum(dim=(1, 2)) / exact.norm(dim=(1, 2)) / found.norm(dim=(1, 2))
    assert float(cosine.min()) > 0.97
    # In the basis of the singular vectors the result is diagonal: no direction leaks into another.
    rotated = u.mT @ found @ vh.mT
    off_diagonal = rotated - torch.diag_embed(torch.diagonal(rotated, dim1=1, dim2=2))
    assert float(off_diagonal.abs().max()) < 0.05


def test_scale_does_not_matter_and_zero_stays_zero():
    matrices = random_matrices(2, 8, 24)
    torch.testing.assert_close(
        orthogonalize(1e-3 * matrices), orthogonalize(1e3 * matrices), atol=0.02, rtol=0
    )
    assert not orthogonalize(torch.zeros(1, 8, 8)).any()


@pytest.mark.parametrize("shape", [(5, 24, 24), (5, 16, 48), (5, 48, 16)])
def test_a_batch_of_matrices_gives_what_each_alone_does(shape):
    matrices = random_matrices(*shape)
    alone = torch.cat([orthogonalize(matrix.unsqueeze(0)) for matrix in matrices])
    torch.testing.assert_close(orthogonalize(matrices), alone, atol=0.02, rtol=0)


def test_the_interval_shrinks_around_one_with_every_quintic():
    values = np.geomspace(SMALLEST, 1, 100_000)
    for a, b, c in module._QUINTICS:
        before = values.max() / values.min()
        values = a * values + b * values**3 + c * values**5
        assert values.min() > 0
        assert values.max() / values.min() < before
    assert 1 - values.min() < 0.21
    assert values.max() - 1 < 0.21
    slopes = [a for a, _, _ in module._QUINTICS]
    assert np.prod(slopes) == pytest.approx(290, rel=0.01)


@pytest.mark.parametrize("shape", [(3, 16, 40), (1, 32, 48), (2, 24, 240)])
def test_the_way_over_the_gram_matrix_is_the_same_polynomial(shape):
    u, _, vh = torch.linalg.svd(random_matrices(*shape), full_matrices=False)
    matrices = u * torch.logspace(0, -2.5, u.shape[-1]) @ vh
    matrices = matrices / matrices.norm(dim=(1, 2), keepdim=True)
    exact = module._by_matrix(matrices.double())
    torch.testing.assert_close(module._by_gram_matrix(matrices.double()), exact, atol=1e-10, rtol=0)
    # In float32 the squares of small singular values keep a few digits: enough for a direction.
    torch.testing.assert_close(module._by_gram_matrix(matrices), exact.float(), atol=2e-3, rtol=0)
