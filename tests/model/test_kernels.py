"""The fused CPU kernels against formulas in float64, in value and gradient, and their promises about
threads, memory and NaN."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import njit

from bessemer.model.attention import document_mask
from bessemer.model.config import ModelConfig
from bessemer.model.kernels import (
    fused_heads,
    fused_rms_norm,
    fused_swiglu,
    linear_cross_entropy,
    masked_softmax_,
    numbers,
    softmax_backward_,
    threads,
    torch_operations,
    visible_spans,
)
from bessemer.model.rope import rope_table
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import LanguageModeling
from bessemer.training.batches import Batch

TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1.5e-2}
"""bfloat16 keeps 8 bits; a product of two rounded values is off by up to two units, 2^-7."""
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCES))


def draw(*shape, seed=0, scale=1.0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * scale


def assert_same_values_and_gradients(kernel, formula, inputs, dtype, parameters=()):
    """`inputs` in the compute dtype and `parameters` in float32; the formula sees the same values in
    float64. Errors are relative to the largest element."""
    mine = [x.to(dtype).requires_grad_() for x in inputs] + [x.float().requires_grad_() for x in parameters]
    theirs = [x.detach().double().requires_grad_() for x in mine]
    actual, expected = kernel(*mine), formula(*theirs)
    actual = actual if isinstance(actual, tuple) else (actual,)
    expected = expected if isinstance(expected, tuple) else (expected,)
    directions = [draw(*out.shape, seed=9).to(out.dtype) for out in actual]
    gradients = torch.autograd.grad(actual, mine, directions)
    expected_gradients = torch.autograd.grad(expected, theirs, [d.double() for d in directions])
    for a, e in zip((*actual, *gradients), (*expected, *expected_gradients), strict=True):
        assert a.shape == e.shape
        error = (a.double() - e).abs().max() / e.abs().max()
        assert error.item() < TOLERANCES[dtype]


@DTYPES
@pytest.mark.parametrize("shape", [(3, 5, 8), (2, 600, 200), (1, 1, 7)])
def test_rms_norm_equals_the_formula(dtype, shape):
    assert_same_values_and_gradients(
        lambda x, weight: fused_rms_norm(x, weight, 1e-3),
        lambda x, weight: x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * weight,
        [draw(*shape)],
        dtype,
        [1 + 0.1 * draw(shape[-1], seed=1)],
    )


@DTYPES
@pytest.mark.parametrize("shape", [(3, 5, 6), (2, 300, 2 * 176)])
def test_swiglu_equals_the_formula(dtype, shape):
    half = shape[-1] // 2
    assert_same_values_and_gradients(
        fused_swiglu, lambda x: F.silu(x[..., :half]) * x[..., half:], [draw(*shape, scale=3.0)], dtype
    )


@DTYPES
@pytest.mark.parametrize("has_norm", [True, False])
@pytest.mark.parametrize("is_shared", [True, False])
def test_heads_equal_norm_and_complex_rotation(dtype, has_norm, is_shared):
    num_heads, num_kv_heads, head_dim, batch, num_tokens = 4, 2, 8, 3, 50
    positions = torch.arange(num_tokens) if is_shared else torch.randint(0, 64, (batch, num_tokens))
    table = rope_table(head_dim, 64, 100.0)
    rotation = tuple(t[positions].to(dtype).reshape(-1, 1, num_tokens, head_dim) for t in table)
    half = head_dim // 2
    cos, sin = (t[..., half:].double().transpose(1, 2) for t in rotation)

    def formula(qkv, *norms):
        def turned(x, norm):
            if has_norm:
                x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * norm
            z = torch.complex(x[..., :half], x[..., half:]) * torch.complex(cos, sin)
            return torch.cat((z.real, z.imag), dim=-1)

        heads = qkv.unflatten(-1, (-1, head_dim))
        q, k, v = heads.split((num_heads, num_kv_heads, num_kv_heads), dim=2)
        q_norm, k_norm = norms if has_norm else (None, None)
        return turned(q, q_norm), turned(k, k_norm), v

    assert_same_values_and_gradients(
        lambda qkv, *norms: fused_heads(qkv, norms or None, rotation, num_kv_heads, 1e-5),
        formula,
        [draw(batch, num_tokens, (num_heads + 2 * num_kv_heads) * head_dim)],
        dtype,
        [1 + 0.1 * draw(head_dim, seed=seed) for seed in (1, 2)] if has_norm else [],
    )


def scattered_mask(batch, num_tokens):
    """Every query sees itself and some earlier keys, with gaps."""
    visible = torch.rand(batch, num_tokens, num_tokens, generator=torch.Generator().manual_seed(0)) < 0.4
    return (visible | torch.eye(num_tokens, dtype=torch.bool)).tril()


@DTYPES
@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("num_tokens", [1, 5, 150])
def test_masked_softmax_equals_the_formula_also_with_gaps_in_the_mask(dtype, batch, num_tokens):
    num_kv_heads, group, scale = 2, 2, 0.3
    visible = scattered_mask(batch, num_tokens)
    scores = draw(3 * num_kv_heads, group * num_tokens, num_tokens, scale=5.0).to(dtype)
    by_head = (3, num_kv_heads * group, num_tokens, num_tokens)
    hidden = ~visible.unsqueeze(1).expand(by_head)
    masked = (scores.double() * scale).view(by_head).masked_fill(hidden, -torch.inf)
    expected = masked.softmax(-1).view(scores.shape)
    # What the mask hides may hold anything.
    poisoned = scores.view(by_head).masked_fill(hidden, 7e4).view(scores.shape).clone()
    p = masked_softmax_(poisoned, visible, visible_spans(visible), num_kv_heads, scale)
    assert float((p.double() - expected).abs().max()) < TOLERANCES[dtype]
    assert not p.view(by_head)[hidden].any()

    d_p = draw(*scores.shape, seed=1).to(dtype)
    along = (p.double() * d_p.double()).sum(-1, keepdim=True)
    expected = scale * p.double() * (d_p.double() - along)
    d_scores = softmax_backward_(d_p.clone(), p, scale)
    assert float((d_scores.double() - expected).abs().max()) < TOLERANCES[dtype] * float(d_p.abs().max())


@DTYPES
@pytest.mark.parametrize(("num_tokens", "vocab_size"), [(9, 11), (1030, 40)])
@pytest.mark.parametrize("z_loss", [None, 0.3])
def test_linear_cross_entropy_equals_the_formula_for_gradients_that_differ_by_row(
    dtype, num_tokens, vocab_size, z_loss
):
    """Of the log-probabilities alone, and with the logarithm of the softmax's divisor."""
    targets = torch.arange(num_tokens) % vocab_size

    def ours(hidden, weight):
        log_probabilities, log_totals = linear_cross_entropy(hidden, weight, targets)
        return log_probabilities if z_loss is None else log_probabilities - z_loss * log_totals.square()

    def formula(hidden, weight):
        logits = hidden @ weight.T
        log_probabilities = -F.cross_entropy(logits, targets, reduction="none")
        return log_probabilities - (z_loss or 0) * logits.logsumexp(-1).square()

    assert_same_values_and_gradients(
        ours,
        formula,
        [draw(num_tokens, 16)],
        dtype,
        [draw(vocab_size, 16, seed=1, scale=0.3).bfloat16()],
    )


def test_linear_cross_entropy_is_the_same_without_gradients_and_for_no_tokens():
    hidden, weight = draw(1500, 8).float(), draw(20, 8, seed=1).float().requires_grad_()
    targets = torch.arange(1500) % 20
    with torch.no_grad():
        quietly = linear_cross_entropy(hidden, weight, targets)
    for quiet, other in zip(quietly, linear_cross_entropy(hidden, weight, targets), strict=True):
        assert torch.equal(quiet, other)
    nothing = linear_cross_entropy(hidden[:0], weight, targets[:0])
    sum(part.sum() for part in nothing).backward()
    assert not weight.grad.any()


def test_linear_cross_entropy_refuses_targets_outside_the_vocabulary():
    with pytest.raises(IndexError, match="20"):
        linear_cross_entropy(draw(2, 8).float(), draw(20, 8).float(), torch.tensor([3, 20]))


def all_outputs(dtype):
    """Outputs and gradients of every kernel, on inputs large enough for a team of threads."""
    x, gate_up = draw(700, 256).to(dtype).requires_grad_(), draw(700, 512).to(dtype).requires_grad_()
    qkv = draw(4, 175, 8 * 32).to(dtype).requires_grad_()
    weight, head = draw(256).float().requires_grad_(), draw(300, 256).float().requires_grad_()
    norms = tuple(draw(32, seed=seed).float().requires_grad_() for seed in (1, 2))
    rotation = tuple(t.to(dtype).view(1, 1, 175, 32) for t in rope_table(32, 175, 100.0))
    outputs = (
        fused_rms_norm(x, weight, 1e-6),
        fused_swiglu(gate_up),
        *fused_heads(qkv, norms, rotation, 2, 1e-6),
        *linear_cross_entropy(x, head, torch.arange(700) % 300),
    )
    leaves = (x, gate_up, qkv, weight, head, *norms)
    gradients = torch.autograd.grad(outputs, leaves, [draw(*o.shape).to(o.dtype) for o in outputs])
    mask = document_mask((torch.arange(175) // 50).expand(4, 175))
    p = masked_softmax_(
        draw(8, 350, 175).to(dtype), mask.boolean_BTS, visible_spans(mask.boolean_BTS), 2, 0.5
    )
    d_scores = softmax_backward_(draw(8, 350, 175, seed=1).to(dtype), p, 0.5)
    return [*outputs, *gradients, p, d_scores]


def same_bytes(a, b):
    return all(
        torch.equal(x.contiguous().view(torch.uint8), y.contiguous().view(torch.uint8))
        for x, y in zip(a, b, strict=True)
    )


@pytest.fixture
def restored_threads():
    num_threads = torch.get_num_threads()
    yield
    torch.set_num_threads(num_threads)


@DTYPES
@pytest.mark.usefixtures("restored_threads")
def test_every_kernel_gives_the_same_bytes_for_any_number_of_threads(dtype):
    results = []
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        results.append([x.detach() for x in all_outputs(dtype)])
    # torch's own matrix products of the cross-entropy may differ with threads; its value may not.
    is_product = [tuple(x.shape) in {(300, 256), (700, 256)} for x in results[0]]
    for other in results[1:]:
        pairs = [(a, b) for a, b, skip in zip(results[0], other, is_product, strict=True) if not skip]
        assert same_bytes(*zip(*pairs, strict=True))


@pytest.mark.usefixtures("restored_threads")
def test_python_threads_stand_in_for_a_missing_openmp(monkeypatch):
    torch.set_num_threads(2)
    expected = all_outputs(torch.float32)
    monkeypatch.setattr(threads, "_gomp_parallel", lambda: None)
    assert same_bytes(
        [x.contiguous() for x in all_outputs(torch.float32)], [x.contiguous() for x in expected]
    )


def test_kernels_may_run_from_several_python_threads_at_once():
    inputs = [draw(900, 256, seed=seed).float() for seed in range(6)]
    weight = torch.ones(256)
    expected = [fused_rms_norm(x, weight, 1e-6) for x in inputs]
    with ThreadPoolExecutor(3) as pool:
        actual = list(pool.map(lambda x: fused_rms_norm(x, weight, 1e-6), inputs * 5))
    assert all(torch.equal(a, expected[i % 6]) for i, a in enumerate(actual))


def test_nan_reaches_the_loss_and_every_output():
    hidden, weight = draw(3, 8).float(), draw(5, 8, seed=1).float()
    hidden[1, 2] = torch.nan
    loss, _ = linear_cross_entropy(hidden, weight, torch.tensor([0, 1, 2]))
    assert loss.isnan().tolist() == [False, True, False]
    assert fused_rms_norm(hidden, torch.ones(8), 1e-6)[1].isnan().all()
    assert fused_swiglu(hidden).isnan().tolist()[1][2]
    visible = torch.ones(1, 1, 3, dtype=torch.bool)
    scores = torch.tensor([[[1.0, torch.nan, 2.0]]])
    assert masked_softmax_(scores, visible, visible_spans(visible), 1, 1.0).isnan().all()


def test_exp_is_as_exact_as_float32_allows():
    @njit
    def apply(x, out):
        for i in range(len(x)):
            out[i] = numbers.exp(x[i])

    x = np.linspace(-87, 88, 20_001, dtype=np.float32)
    out = np.empty_like(x)
    apply(x, out)
    exact = np.exp(x.astype(np.float64))
    assert np.abs(out / exact - 1).max() < 1e-6


def test_rounding_to_bfloat16_is_torchs_for_ties_and_infinities():
    @njit
    def apply(x, out):
        for i in range(len(x)):
            out[i] = numbers.narrow(x[i], out)

    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, dtype=np.uint32)
    ties = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    x = np.concatenate((bits, ties)).view(np.float32)
    x = np.concatenate((x[~np.isnan(x)], np.array([np.inf, -np.inf, 0.0, -0.0], dtype=np.float32)))
    out = np.empty(len(x), dtype=np.uint16)
    apply(x, out)
    assert torch.equal(torch.from_numpy(out), torch.from_numpy(x).bfloat16().view(torch.uint16))


def packed_step(dtype):
    """A model whose every parameter is in use, and a packed batch with unsupervised positions."""
    config = ModelConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        qk_norm=True,
    )  # fmt: skip
    model = Transformer(config, dtype).initialize(0)
    with torch.no_grad():
        for seed, parameter in enumerate(model.parameters()):
            parameter.add_(draw(*parameter.shape, seed=seed, scale=0.1).float())
    tokens = torch.randint(0, 50, (3, 41), generator=torch.Generator().manual_seed(0))
    documents, positions = (torch.arange(40) // 15).int(), torch.arange(40) % 15
    targets = torch.where(torch.arange(40) % 3 == 0, -100, tokens[:, 1:])
    batch = Batch(tokens[:, :-1].contiguous(), targets, documents.repeat(3, 1), positions.repeat(3, 1))
    return model, batch


def gradients_of_step(dtype, is_fused):
    model, batch = packed_step(dtype)
    if is_fused:
        total = LanguageModeling().loss(model, batch).total
    else:
        with torch_operations():
            total = LanguageModeling().loss(model, batch).total
    total.backward()
    return total.item(), torch.cat([p.grad.flatten() for p in model.parameters()])


def test_a_training_step_is_the_same_with_kernels_and_with_torch_operations():
    loss, gradient = gradients_of_step(torch.float32, is_fused=True)
    expected_loss, expected_gradient = gradients_of_step(torch.float32, is_fused=False)
    assert loss == pytest.approx(expected_loss, rel=1e-6)
    assert float((gradient - expected_gradient).norm() / expected_gradient.norm()) < 1e-5


def test_in_bfloat16_the_kernels_are_no_further_from_float32_than_torch_operations():
    _, exact = gradients_of_step(torch.float32, is_fused=False)
    fused, eager = (gradients_of_step(torch.bfloat16, is_fused=choice)[1] for choice in (True, False))
    assert float((fused - exact).norm()) < 1.1 * float((eager - exact).norm())
