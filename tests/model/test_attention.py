"""Every backend against the formula written out in float64, forward and gradient."""

import math

import pytest
import torch

from bessemer.model.attention import AttentionMask, attend, causal_mask, choose_backend, document_mask
from bessemer.model.gpu_attention import document_starts
from bessemer.model.online_softmax import online_softmax_attention


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


CPU = torch.device("cpu")
MASKS = {
    "causal": causal_mask(7, CPU),
    "documents": document_mask(DOCUMENTS_BT),
    "window": causal_mask(7, CPU, window=3),
    "window of one": causal_mask(7, CPU, window=1),
    "documents and window": document_mask(DOCUMENTS_BT, window=2),
}


def visible_by_definition(kind):
    """Row, query, key: the same document, not later, within the window."""
    documents_BT = DOCUMENTS_BT if "documents" in kind else torch.zeros_like(DOCUMENTS_BT)
    window = MASKS[kind].window or 7
    return torch.tensor(
        [
            [[row[t] == row[s] and t - window < s <= t for s in range(7)] for t in range(7)]
            for row in documents_BT.tolist()
        ]
    )


@pytest.mark.parametrize("kind", MASKS)
def test_masks_show_what_their_definition_says(kind):
    assert torch.equal(MASKS[kind].boolean_BTS.expand(2, 7, 7), visible_by_definition(kind))


def test_a_window_as_wide_as_the_row_is_no_window():
    assert causal_mask(7, CPU, window=7).is_plain
    assert not causal_mask(7, CPU, window=6).is_plain


@pytest.mark.parametrize("num_kv_heads", [1, 2, 4])
@pytest.mark.parametrize(
    ("backend", "kind"),
    [("causal", "causal"), *((b, kind) for b in ("masked", "explicit", "online") for kind in MASKS)],
)
def test_every_backend_equals_the_formula_in_value_and_gradient(num_kv_heads, backend, kind):
    mask = MASKS[kind]
    expected_inputs, inputs = random_qkv(num_kv_heads), random_qkv(num_kv_heads)
    expected = by_formula(*expected_inputs, visible_by_definition(kind))
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


@pytest.mark.parametrize("block", [1, 2, 3, 5, 7, 64])
def test_the_online_softmax_is_exact_for_any_size_of_block(block):
    mask = MASKS["documents and window"]
    expected_inputs, inputs = random_qkv(2), random_qkv(2)
    expected = attend(*expected_inputs, mask, "masked")
    actual = online_softmax_attention(*inputs, mask, block)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    for output in (expected, actual):
        output.square().sum().backward()
    for mine, theirs in zip(inputs, expected_inputs, strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-11)


def test_the_online_softmax_holds_scores_that_a_plain_exponential_could_not():
    q, k, v = (100.0 * x.detach() for x in random_qkv(2, torch.float32))
    torch.testing.assert_close(
        online_softmax_attention(q, k, v, MASKS["causal"], 2),
        attend(q, k, v, MASKS["causal"], "masked"),
        rtol=1e-4,
        atol=1e-3,
    )


@pytest.mark.parametrize("kind", MASKS)
def test_flex_attention_equals_the_reference_going_forward(kind):
    with torch.no_grad():
        inputs = [x.detach() for x in random_qkv(2, torch.float32)]
        torch.testing.assert_close(
            attend(*inputs, MASKS[kind], "flex"), attend(*inputs, MASKS[kind], "masked"), rtol=1e-5, atol=1e-6
        )


@pytest.mark.skipif(not torch.cuda.is_available(), reason="varlen attention and flex's backward need a GPU")
@pytest.mark.parametrize("kind", MASKS)
@pytest.mark.parametrize("backend", ["flex", "varlen"])
def test_gpu_backends_equal_the_reference_in_value_and_gradient(backend, kind):
    documents = MASKS[kind].documents_BT
    mask = AttentionMask(
        None,
        7,
        torch.device("cuda"),
        documents if documents is None else documents.cuda(),
        MASKS[kind].window,
    )

    def run(backend):
        generator = torch.Generator().manual_seed(0)
        shapes = ((2, 7, 4, 64), (2, 7, 2, 64), (2, 7, 2, 64))
        inputs = [torch.randn(shape, generator=generator).to("cuda", torch.bfloat16) for shape in shapes]
        for x in inputs:
            x.requires_grad_()
        output = attend(*inputs, mask, backend)
        output.float().square().sum().backward()
        return output, *(x.grad for x in inputs)

    for mine, theirs in zip(run(backend), run("masked"), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=3e-2, atol=3e-2)


def test_documents_laid_end_to_end_begin_where_the_number_changes():
    starts, longest = document_starts(DOCUMENTS_BT, 2, 7, CPU)
    assert (starts.tolist(), longest) == ([0, 3, 5, 7, 14], 7)
    starts, longest = document_starts(None, 3, 5, CPU)
    assert (starts.tolist(), longest) == ([0, 5, 10, 15], 5)


def test_explicit_attention_passes_the_numerical_gradient_check():
    mask = document_mask(DOCUMENTS_BT[:, :5])
    inputs = random_qkv(2, num_queries=5, num_keys=5)
    assert torch.autograd.gradcheck(lambda *qkv: attend(*qkv, mask, "explicit"), inputs)


def test_queries_may_be_fewer_than_keys_as_with_a_cache():
    visible_BTS = torch.tensor([[[True] * 4 + [False] * 3], [[True] * 6 + [False]]])
    mask = AttentionMask(visible_BTS, 1, torch.device("cpu"))
    inputs = random_qkv(2, num_queries=1)
    expected = by_formula(*inputs, visible_BTS)
    for backend in ("explicit", "masked", "online"):
        torch.testing.assert_close(attend(*inputs, mask, backend), expected, rtol=1e-10, atol=1e-12)
    with torch.no_grad():
        narrow = [x.detach().float() for x in inputs]
        torch.testing.assert_close(attend(*narrow, mask, "flex"), expected.float(), rtol=1e-5, atol=1e-6)


def test_the_causal_backend_refuses_a_document_mask():
    with pytest.raises(ValueError, match="document mask"):
        attend(*random_qkv(2), document_mask(DOCUMENTS_BT), "causal")


def test_rows_that_hold_few_scores_choose_the_explicit_backend_on_cpu_and_others_sdpa():
    def backend(num_tokens, document_length=None):
        q = torch.empty(1, num_tokens, 2, 4)
        if document_length is None:
            return choose_backend(q, q, causal_mask(num_tokens, q.device))
        return choose_backend(q, q, document_mask((torch.arange(num_tokens) // document_length).unsqueeze(0)))

    assert [backend(64), backend(64, 64), backend(2048, 500)] == ["explicit"] * 3
    assert [backend(2048), backend(2048, 2048)] == ["causal", "masked"]


@pytest.mark.parametrize("num_tokens", [130, 600])
@pytest.mark.parametrize("window", [None, 50])
def test_tiles_cover_what_is_visible_once_and_little_else(num_tokens, window):
    generator = torch.Generator().manual_seed(2)
    new_document = torch.rand(3, num_tokens, generator=generator) < 0.02
    mask = document_mask(new_document.cumsum(1), window)
    covered = torch.zeros(3, num_tokens, num_tokens, dtype=torch.int64)
    area = 0
    for tile in mask.tiles:
        covered[tile.rows, tile.queries, tile.keys] += tile.visible_BTS
        area += len(covered[tile.rows]) * tile.visible_BTS[0].numel()
    assert torch.equal(covered, mask.boolean_BTS.long())
    assert area < 0.8 * num_tokens**2 * 3
    assert mask.mean_keys == pytest.approx(area / num_tokens / 3)


@pytest.mark.parametrize("num_tokens", [200, 600])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_explicit_attention_over_several_tiles_equals_the_reference(num_tokens, dtype):
    generator = torch.Generator().manual_seed(3)
    documents_BT = (torch.rand(2, num_tokens, generator=generator) < 0.03).cumsum(1)
    shapes = ((2, num_tokens, 4, 8), (2, num_tokens, 2, 8), (2, num_tokens, 2, 8))
    drawn = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    results = []
    for backend in ("explicit", "masked"):
        inputs = [x.clone().requires_grad_() for x in drawn]
        output = attend(*inputs, document_mask(documents_BT, window=90), backend)
        (output * torch.linspace(0, 1, num_tokens, dtype=dtype)[:, None, None]).square().sum().backward()
        results.append([output, *(x.grad for x in inputs)])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)
