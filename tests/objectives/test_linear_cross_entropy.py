"""Head and loss in chunks: the same values and gradients, and never the logits of all tokens."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bessemer.model.kernels import torch_operations
from bessemer.objectives.linear_cross_entropy import log_probabilities, summed_cross_entropy

S, D, V = 150, 24, 512
WHOLE, CHUNKED = 2**40, 32 * V * 4
"""The largest logits that are kept whole: everything, or 32 rows of float32."""


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any operation returns, the head's own shape left out."""

    def __init__(self):
        super().__init__()
        self.num_elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor) and tuple(tensor.shape) not in ((V, D), (D, V)):
                self.num_elements = max(self.num_elements, tensor.numel())
        return result


def summed_loss(*arguments):
    return summed_cross_entropy(*arguments).total


def penalized_loss(*arguments):
    return summed_cross_entropy(*arguments, z_loss=0.02).total


FUNCTIONS = pytest.mark.parametrize("function", [summed_loss, penalized_loss, log_probabilities])


def inputs(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(S, D, generator=generator).to(dtype).requires_grad_()
    weight = torch.randn(V, D, generator=generator).mul_(0.3).requires_grad_()
    return hidden, weight, torch.randint(V, (S,), generator=generator)


def run(function, largest, dtype=torch.float32, factor=0.37):
    """Value, gradients of value · factor, and the largest tensor on the way."""
    hidden, weight, targets = inputs(dtype)
    with LargestTensor() as largest_tensor:
        value = function(hidden, weight, targets, largest)
        weights = torch.linspace(0.5, 1.5, S) if value.dim() else torch.ones(())
        (value * weights).sum().mul(factor).backward()
    return value.detach(), hidden.grad, weight.grad, largest_tensor.num_elements


@pytest.fixture(params=["fused", "torch"])
def backend(request):
    if request.param == "fused":
        yield
    else:
        with torch_operations():
            yield


@pytest.mark.usefixtures("backend")
@FUNCTIONS
def test_chunks_give_the_value_and_the_gradients_of_the_whole(function):
    whole, chunked = run(function, WHOLE), run(function, CHUNKED)
    for name, one, two in zip(("value", "hidden", "weight"), whole[:3], chunked[:3], strict=True):
        assert float(one.norm()) > 0
        assert float((one - two).norm() / one.norm()) < 1e-5, name


@pytest.mark.usefixtures("backend")
@FUNCTIONS
def test_in_chunks_the_logits_of_all_tokens_never_exist(function):
    assert run(function, WHOLE)[3] >= S * V
    assert run(function, CHUNKED)[3] <= 32 * V < S * V / 4


@pytest.mark.usefixtures("backend")
@pytest.mark.parametrize("largest", [WHOLE, CHUNKED])
@pytest.mark.parametrize("z_loss", [0.0, 0.05])
def test_the_sum_is_the_formulas_in_double_precision(z_loss, largest):
    """Cross-entropy and z_loss log^2 Z (Chowdhery et al. 2022, section 5), by plain autograd."""
    hidden, weight, targets = inputs()
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, weight)]
    logits = exact[0] @ exact[1].T
    penalty = z_loss * logits.logsumexp(-1).square().sum()
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="sum") + penalty
    expected.backward()
    found = summed_cross_entropy(hidden, weight, targets, largest, z_loss=z_loss)
    found.total.backward()
    assert found.total.item() == pytest.approx(expected.item(), rel=1e-6)
    assert found.penalty.item() == pytest.approx(penalty.item(), rel=1e-6)
    assert not found.penalty.requires_grad
    for ours, theirs in zip((hidden, weight), exact, strict=True):
        torch.testing.assert_close(ours.grad.double(), theirs.grad, rtol=1e-4, atol=1e-5)


def test_in_bfloat16_chunks_are_as_near_to_float32_as_the_whole_is():
    exact = run(penalized_loss, WHOLE)
    errors = []
    for largest in (WHOLE, CHUNKED // 2):
        found = run(penalized_loss, largest, torch.bfloat16)
        errors.append(
            [float((a.float() - b).norm() / b.norm()) for a, b in zip(found[:3], exact[:3], strict=True)]
        )
    for whole, chunked in zip(*errors, strict=True):
        assert chunked < 1.2 * whole + 1e-4


def test_without_gradients_only_the_value_is_computed():
    hidden, weight, targets = inputs()
    with torch.no_grad():
        value = summed_loss(hidden, weight, targets, CHUNKED)
    assert not value.requires_grad
    assert value.item() == pytest.approx(run(summed_loss, WHOLE)[0].item(), rel=1e-5)


def test_a_frozen_head_gets_no_gradient_and_the_hidden_states_still_do():
    hidden, weight, targets = inputs()
    weight.requires_grad_(False)
    summed_loss(hidden, weight, targets, CHUNKED).backward()
    assert weight.grad is None
    torch.testing.assert_close(hidden.grad, run(summed_loss, WHOLE, factor=1.0)[1])
