"""Every backend against the formula written out in float64, forward and gradient."""

import math

import pytest
import torch

from bessemer.model.attention import AttentionMask, attend, causal_mask, choose_backend, document_mask


def by_formula(q_BTHE, k_BSKE, v_BSKE, visible_BTS):
    """One head, one query at a time; no batching, no tricks."""
    batch, num_tokens, num_heads, head_dim = q_BTHE.shape
    group = num_heads // k_BSKE.shape[2]
    out = torch.zeros_like(q_BTHE)
    for b in range(batch):
        for h in range(num_heads):
            for t in range(num_tokens):
                seen = visible_BTS[b % len(visible_BTS), t].nonzero().squeeze(1)
                scores = k_BSKE[b, seen, h // group] @ q_BTHE[b, t, h] / math.sqrt(head_dim)
                out[b, t, h] = scores.softmax(0) @ v_BSKE[b, seen, h // group]
    return out


def random_qkv(num_kv_heads, dtype=torch.float64, num_queries=7, num_keys=7):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(2, num_queries, 4, 6, generator=generator, dtype=torch.float64)
    k, v = (torch.randn(2, num_keys, num_kv_heads, 6, generator=generator, dtype=torch.float64) for _ in "kv")
    return [x.to(dtype).requires_grad_() for x in (q, k, v)]


DOCUMENTS_BT = torch.tensor([[0, 0, 0, 1, 1, 2, 2], [3, 3, 3, 3, 3, 3, 3]])


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize(
    ("backend", "is_packed"), [("causal", False), ("masked", True), ("explicit", False), ("explicit", True)]
)
def test_every_backend_equals_the_formula_in_value_and_gradient(num_kv_heads, backend, is_packed):
    mask = document_mask(DOCUMENTS_BT) if is_packed else causal_mask(7, torch.device("cpu"))
    expected_inputs, inputs = random_qkv(num_kv_heads), random_qkv(num_kv_heads)
    expected = by_formula(*expected_inputs, mask.boolean_BTS)
    actual = attend(*inputs, mask, backend)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    direction = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected.backward(direction)
    actual.backward(direction)
    for mine, theirs in zip(inputs, expected_inputs, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_explicit_attention_equals_the_reference_backend_in_training_precision(dtype, tolerance):
    mask = document_mask(DOCUMENTS_BT)
    explicit, reference = random_qkv(2, dtype), random_qkv(2, dtype)
    outputs = attend(*explicit, mask, "explicit"), attend(*reference, mask, "masked")
    torch.testing.assert_close(*outputs, rtol=tolerance, atol=tolerance)
    for output in outputs:
        output.float().square().sum().backward()
    for mine, theirs in zip(explicit, reference, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=tolerance, atol=4 * tolerance)


def test_explicit_attention_passes_the_numerical_gradient_check():
    mask = document_mask(DOCUMENTS_BT[:, :5])
    inputs = random_qkv(2, num_queries=5, num_keys=5)
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, mask, "explicit"), inputs)


def test_queries_may_be_fewer_than_keys_as_with_a_cache():
    visible_BTS = torch.tensor([[[True] * 4 + [False] * 3], [[True] * 6 + [False]]])
    mask = AttentionMask(visible_BTS, 1, torch.device("cpu"))
    inputs = random_qkv(2, num_queries=1)
    expected = by_formula(*inputs, visible_BTS)
    for backend in ("explicit", "masked"):
        torch.testing.assert_close(attend(*inputs, mask, backend), expected, rtol=1e-10, atol=1e-12)


def test_the_causal_backend_refuses_a_document_mask():
    with pytest.raises(ValueError, match="document mask"):
        attend(*random_qkv(2), document_mask(DOCUMENTS_BT), "causal")


def test_short_sequences_on_cpu_choose_the_explicit_backend_and_long_ones_sdpa():
    def backend(num_tokens, is_packed):
        q = torch.empty(1, num_tokens, 2, 4)
        documents_BT = torch.zeros(1, num_tokens, dtype=torch.long)
        mask = document_mask(documents_BT) if is_packed else causal_mask(num_tokens, q.device)
        return choose_backend(q, q, mask)

    assert [backend(64, False), backend(64, True)] == ["explicit", "explicit"]
    assert [backend(600, False), backend(600, True)] == ["causal", "masked"]
