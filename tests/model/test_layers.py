"""RMSNorm, SwiGLU and RoPE against transformers' modules and against numerical gradients."""

import pytest
import torch
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from bessemer.model.layers import linear, rms_norm, swiglu
from bessemer.model.rope import rope_table, rotate


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-6), (torch.bfloat16, 2.0**-7)])
def test_rms_norm_equals_transformers_up_to_rounding(dtype, rounding):
    theirs = LlamaRMSNorm(64, eps=1e-5)
    theirs.weight.data = 1 + 0.1 * randn(64, dtype=torch.float32)
    x = 3 * randn(2, 5, 64, dtype=dtype)
    expected = theirs.weight.to(dtype) * (LlamaRMSNorm(64, eps=1e-5)(x)).to(dtype)
    torch.testing.assert_close(rms_norm(x, theirs.weight, 1e-5), expected, rtol=rounding, atol=1e-6)


def test_rms_norm_has_the_gradient_of_its_formula_also_on_a_strided_input():
    x = randn(2, 3, 16).requires_grad_()
    weight = (1 + 0.1 * randn(8, seed=1)).requires_grad_()

    def by_formula(x, weight):
        heads = x.unflatten(-1, (2, 8))[..., :1, :]
        return heads / (heads.square().mean(-1, keepdim=True) + 1e-6).sqrt() * weight

    direction = randn(2, 3, 1, 8, seed=2)
    expected = torch.autograd.grad(by_formula(x, weight), (x, weight), direction)
    actual_output = rms_norm(x.float().unflatten(-1, (2, 8))[..., :1, :], weight.float(), 1e-6)
    actual = torch.autograd.grad(actual_output, (x, weight), direction.float())
    for mine, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_swiglu_equals_its_formula_in_value_and_gradient():
    gate_up = randn(3, 4, 10).requires_grad_()
    gate, up = gate_up.detach().chunk(2, dim=-1)
    torch.testing.assert_close(swiglu(gate_up), gate * torch.sigmoid(gate) * up)
    assert torch.autograd.gradcheck(swiglu, (gate_up,))


def test_rotation_equals_transformers():
    cos, sin = rope_table(head_dim=8, num_positions=6, theta=1e4)
    positions_BT = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 1, 0, 1, 2, 3]])
    angles = positions_BT.unsqueeze(2) / 1e4 ** (torch.arange(0, 8, 2) / 8)
    emb = torch.cat((angles, angles), dim=-1)
    q, k = randn(2, 6, 3, 8, dtype=torch.float32), randn(2, 6, 1, 8, seed=1, dtype=torch.float32)
    expected = apply_rotary_pos_emb(q, k, emb.cos(), emb.sin(), unsqueeze_dim=2)
    rotation = cos[positions_BT].unsqueeze(1), sin[positions_BT].unsqueeze(1)
    for x, theirs in zip((q, k), expected, strict=True):
        torch.testing.assert_close(rotate(x, rotation), theirs, rtol=1e-6, atol=1e-6)


def test_rotation_has_the_gradient_of_its_formula():
    cos, sin = (table.double()[None, None] for table in rope_table(8, 5, 100.0))
    x = randn(2, 5, 3, 8).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: rotate(x, (cos, sin)), (x,))


def test_scores_after_rotation_depend_only_on_the_distance():
    cos, sin = rope_table(head_dim=8, num_positions=20, theta=100.0)
    q, k = randn(8, dtype=torch.float32), randn(8, seed=1, dtype=torch.float32)

    def score(query_position, key_position):
        rotated = [
            rotate(x.view(1, 1, 1, 8), (cos[p].view(1, 1, 1, 8), sin[p].view(1, 1, 1, 8)))
            for x, p in ((q, query_position), (k, key_position))
        ]
        return float((rotated[0] * rotated[1]).sum())

    assert score(5, 2) == pytest.approx(score(19, 16), abs=1e-5)
    assert score(5, 2) != pytest.approx(score(5, 3), abs=1e-3)


def test_linear_in_bf16_gives_float32_gradients_to_float32_parameters():
    weight = randn(4, 6, dtype=torch.float32).requires_grad_()
    bias = randn(4, seed=1, dtype=torch.float32).requires_grad_()
    x = randn(3, 6, seed=2, dtype=torch.bfloat16)
    out = linear(x, weight, bias)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), F.linear(x.float(), weight, bias), rtol=2e-2, atol=2e-2)
    out.sum().backward()
    assert weight.grad.dtype == bias.grad.dtype == torch.float32
