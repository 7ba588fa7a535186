"""Products in float8 against the same roundings done by hand, and models that use them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bessemer.errors import BessemerError
from bessemer.model.float8 import float8_linear, multiply_in_float8, multiply_plainly, to_float8
from bessemer.model.layers import linear
from model_helpers import tiny_model

# Three bits of mantissa: a value is off by at most half of 1/8 of its own power of two.
LARGEST_RELATIVE_ERROR = 2.0**-4
SMALLEST_NORMAL = 2.0**-6


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@given(st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=20))
def test_every_value_comes_back_within_half_a_step_of_its_rows_scale(values):
    row = torch.tensor([values])
    rounded, scale = to_float8(row)
    back = rounded.double() * scale.double()
    step = torch.maximum(row.double().abs() * LARGEST_RELATIVE_ERROR, scale.double() * SMALLEST_NORMAL / 16)
    assert torch.all((back - row).abs() <= step)


def test_scales_are_powers_of_two_and_use_the_upper_half_of_the_range():
    rows = random(200, 16) * 10.0 ** torch.arange(-20, 20, 0.2)[:, None]
    rounded, scale = to_float8(rows)
    assert all(math.frexp(value)[0] == 0.5 for value in scale.flatten().tolist())
    peaks = rounded.float().abs().amax(1)
    assert float(peaks.min()) >= 224 * (1 - LARGEST_RELATIVE_ERROR)
    assert float(peaks.max()) <= 448


def test_a_row_of_zeros_stays_zeros():
    rounded, scale = to_float8(torch.zeros(2, 16))
    assert rounded.float().abs().max() == 0
    assert torch.isfinite(scale).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_products_and_gradients_are_those_of_the_rounded_operands(dtype):
    x, weight = random(3, 8, 32).to(dtype).requires_grad_(), random(48, 32, seed=1).requires_grad_()
    bias, d_y = random(48, seed=2), random(3, 8, 48, seed=3).to(dtype)

    def rounded(rows):
        values, scale = to_float8(rows)
        return values.double() * scale.double()

    y = float8_linear(x, weight, bias)
    y.backward(d_y)
    narrow_weight = weight.detach().to(dtype)
    expected = rounded(x.detach().flatten(0, 1)) @ rounded(narrow_weight).T + bias.to(dtype).double()
    d_x = rounded(d_y.flatten(0, 1)) @ rounded(narrow_weight.T.contiguous()).T
    d_weight = d_y.flatten(0, 1).double().T @ x.detach().flatten(0, 1).double()
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 5e-2}
    assert y.dtype == x.grad.dtype == dtype
    assert weight.grad.dtype == torch.float32
    torch.testing.assert_close(y.detach().flatten(0, 1).double(), expected, **tolerance)
    torch.testing.assert_close(x.grad.flatten(0, 1).double(), d_x, **tolerance)
    torch.testing.assert_close(weight.grad.double(), d_weight, **tolerance)


def test_the_error_of_a_product_is_that_of_three_bits():
    x, weight = random(64, 256), random(128, 256, seed=1)
    exact = linear(x, weight)
    error = (float8_linear(x, weight) - exact).norm() / exact.norm()
    assert 0.005 < error < 0.05, "rounded, and not worse than e4m3 rounds"


def test_a_model_multiplies_in_float8_and_plainly_again():
    model = tiny_model()
    tokens = torch.arange(24).reshape(2, 12)
    plain = model(tokens)
    multiply_in_float8(model)
    eight_bits = model(tokens)
    multiply_plainly(model)
    assert torch.equal(model(tokens), plain)
    difference = (eight_bits - plain).norm() / plain.norm()
    assert 0.001 < difference < 0.2


def test_sizes_that_do_not_divide_are_named():
    with pytest.raises(BessemerError, match=r"qkv is 48 x 24.*multiples of 16"):
        multiply_in_float8(tiny_model(hidden_size=24))
