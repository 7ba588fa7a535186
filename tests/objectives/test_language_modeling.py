import math

import numpy as np
import pytest
import torch

from bessemer.objectives.language_modeling import LanguageModeling, sum_by_document, target_log_probabilities
from bessemer.tokenization.chat import render
from bessemer.tokenization.tokenizer import train_bpe
from bessemer.training.batches import IGNORE, Batch, row_of_conversations, row_of_pieces, stack_rows
from model_helpers import assert_same_gradients, gradients, tiny_model

PAD = 60
OBJECTIVE = LanguageModeling()


def conversations(count, seed=0, longest=14):
    """Random (token ids, loss mask) pairs, the last token always learnt."""
    draw = np.random.Generator(np.random.Philox(seed))
    result = []
    for _ in range(count):
        length = int(draw.integers(4, longest))
        ids = draw.integers(0, PAD, length).tolist()
        result.append((ids, [False, *(draw.random(length - 2) < 0.5).tolist(), True]))
    return result


def packed(rows, length=40):
    return stack_rows([row_of_conversations(row, length, PAD) for row in rows])


def gradient_of(model, batches):
    """As the loop does it: summed losses over one global count."""
    model.zero_grad(set_to_none=True)
    count = sum(OBJECTIVE.count(batch) for batch in batches)
    for batch in batches:
        (OBJECTIVE.loss(model, batch).total / count).backward()
    return gradients(model)


def test_one_conversation_teaches_exactly_its_golden_pairs():
    tokenizer = train_bpe(iter(["abc"]), 260)
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "yo"},
        {"role": "user", "content": "k"},
        {"role": "assistant", "content": "ok"},
    ]
    rendered = render(tokenizer, messages)
    row = row_of_conversations([(rendered.token_ids, rendered.loss_mask)], 70, tokenizer.padding_id)
    name = [tokenizer.decode([id], skip_special=False) for id in range(260)]
    pairs = [
        (name[id], name[target])
        for id, target in zip(row.token_ids, row.targets, strict=True)
        if target != IGNORE
    ]
    assert pairs == [
        ("\n", "y"),
        ("y", "o"),
        ("o", "<|im_end|>"),
        ("\n", "o"),
        ("o", "k"),
        ("k", "<|im_end|>"),
    ]


def test_a_masked_target_of_another_id_changes_nothing_at_all():
    model = tiny_model()
    ids, mask = conversations(1, seed=3)[0]
    mask = [*mask, False, False, False]  # a masked tail, which no supervised position can see
    one, two = (gradient_of(model, [packed([[([*ids, *tail], mask)]])]) for tail in ((5, 6, 7), (8, 9, 10)))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_masked_conversation_gets_exactly_no_gradient():
    model = tiny_model(tied=False)
    masked = ([50, 51, 52, 53], [False] * 4)
    learnt = ([1, 2, 3, 4, 5], [False, False, True, True, True])
    by_embedding = gradient_of(model, [packed([[masked, learnt], [learnt, masked]])])["embedding"]
    looked_up = by_embedding.abs().sum(dim=1).nonzero().flatten().tolist()
    assert looked_up == [1, 2, 3, 4], (
        "the last token, 5, is only a target; 50 to 53 and padding teach nothing"
    )


def test_the_gradient_by_the_logits_is_zero_where_masked_and_softmax_less_onehot_elsewhere():
    model = tiny_model(tied=False)
    batch = packed([conversations(2, seed=1), conversations(3, seed=2)])
    hidden_BTD = model(batch.token_ids_BT, documents_BT=batch.documents_BT, positions_BT=batch.positions_BT)
    logits_BTV = model.logits(hidden_BTD).detach().double()
    is_learnt = batch.targets_BT != IGNORE
    onehot = torch.nn.functional.one_hot(batch.targets_BT.clamp(min=0), 61)
    by_logits_BTV = (logits_BTV.softmax(-1) - onehot) * is_learnt.unsqueeze(-1)
    expected = torch.einsum("btv,btd->vd", by_logits_BTV, hidden_BTD.detach().double())
    loss = OBJECTIVE.loss(model, batch).total
    (by_head,) = torch.autograd.grad(loss, [model.head_weight])
    torch.testing.assert_close(by_head.double(), expected, rtol=1e-4, atol=1e-5)


def test_every_supervised_target_counts_and_every_masked_one_does_not():
    model = tiny_model()
    batch = packed([conversations(2, seed=4)])
    losses = {}
    with torch.no_grad():
        whole = float(OBJECTIVE.loss(model, batch).total)
        for place in range(batch.num_tokens):
            targets = batch.targets_BT.clone()
            was_learnt = int(targets[0, place]) != IGNORE
            targets[0, place] = IGNORE
            without = Batch(batch.token_ids_BT, targets, batch.documents_BT, batch.positions_BT)
            losses[place] = (was_learnt, whole - float(OBJECTIVE.loss(model, without).total))
    assert all((share > 1e-4) == was_learnt for was_learnt, share in losses.values())
    assert sum(share for _, share in losses.values()) == pytest.approx(whole, rel=1e-4)
    assert OBJECTIVE.count(batch) == sum(was_learnt for was_learnt, _ in losses.values())


def test_the_loss_is_torchs_own_cross_entropy():
    model = tiny_model()
    batch = packed([conversations(3, seed=5), conversations(2, seed=6)])
    logits_BTV = model.logits(
        model(batch.token_ids_BT, documents_BT=batch.documents_BT, positions_BT=batch.positions_BT)
    )
    expected = torch.nn.functional.cross_entropy(
        logits_BTV.flatten(0, 1).double(), batch.targets_BT.flatten(), reduction="sum"
    )
    assert OBJECTIVE.loss(model, batch).total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_packed_and_padded_batches_give_the_same_gradient():
    model, items = tiny_model(), conversations(6, seed=7)
    in_two_rows = packed([items[:3], items[3:]])
    one_a_row = packed([[item] for item in items], length=16)
    alone = [packed([[item]], length=len(item[0])) for item in items]
    reference = gradient_of(model, [in_two_rows])
    assert_same_gradients(reference, gradient_of(model, [one_a_row]))
    assert_same_gradients(reference, gradient_of(model, alone))


@pytest.mark.parametrize("num_parts", [2, 3, 5, 8])
def test_any_split_into_micro_batches_gives_the_same_gradient(num_parts):
    """The rows hold very different counts, so a mean of means would be far off."""
    model, items = tiny_model(), conversations(9, seed=8)
    batch = packed([items[:3], items[3:4], items[4:7], items[7:8], items[8:]])
    parts = batch.split(num_parts)
    assert sum(OBJECTIVE.count(part) for part in parts) == OBJECTIVE.count(batch)
    assert_same_gradients(gradient_of(model, [batch]), gradient_of(model, parts))


def test_a_micro_batch_without_targets_adds_nothing():
    model, items = tiny_model(), conversations(2, seed=9)
    silent = [([1, 2, 3], [False, False, False])]
    batch = packed([items, silent])
    assert_same_gradients(gradient_of(model, [packed([items])]), gradient_of(model, batch.split(2)))


def test_padding_ids_change_nothing():
    model, items = tiny_model(), conversations(2, seed=10)
    one, two = (stack_rows([row_of_conversations(items, 40, pad)]) for pad in (PAD, 0))
    ours, theirs = gradient_of(model, [one]), gradient_of(model, [two])
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_neighbouring_documents_do_not_see_each_other():
    model = tiny_model()
    first, second, other = ([3, 1, 4, 1, 5], [9, 2, 6, 5, 3], [8, 9, 7, 9, 3])
    pieces = [[np.array(first), np.array(second)], [np.array(other), np.array(second)]]
    with torch.no_grad():
        sums = []
        for row in pieces:
            batch = stack_rows([row_of_pieces(row)])
            values, places = target_log_probabilities(model, batch)
            sums.append(sum_by_document(values, places, batch, num_documents=2)[0])
    assert float(sums[0][0]) != float(sums[1][0])
    assert float(sums[0][1]) == pytest.approx(float(sums[1][1]), abs=1e-5)


def test_sums_by_document_are_the_sums_of_each_documents_targets():
    model = tiny_model()
    rows = [conversations(3, seed=11), conversations(1, seed=12), conversations(2, seed=13)]
    batch = packed(rows, length=45)
    with torch.no_grad():
        values, places = target_log_probabilities(model, batch)
        sums = sum_by_document(values, places, batch, num_documents=5)
        assert sums.shape == (3, 5)
        for row, items in enumerate(rows):
            for number, item in enumerate(items):
                alone = float(OBJECTIVE.loss(model, packed([[item]], length=len(item[0]))).total)
                assert float(sums[row, number]) == pytest.approx(-alone, rel=1e-5)
            assert not sums[row, len(items) :].any()


def test_a_uniform_model_loses_the_logarithm_of_its_vocabulary():
    model = tiny_model()
    with torch.no_grad():
        model.embedding.zero_()
    batch = packed([conversations(2, seed=14)])
    loss = OBJECTIVE.loss(model, batch)
    assert loss.total.item() / OBJECTIVE.count(batch) == pytest.approx(math.log(61), rel=1e-6)


def test_z_loss_is_part_of_the_loss_and_told_apart_from_it():
    model = tiny_model(PAD + 1)
    batch = packed([conversations(3), conversations(2, seed=1)])
    plain, penalized = OBJECTIVE.loss(model, batch), LanguageModeling(z_loss=0.1).loss(model, batch)
    logits = model.logits(model(batch.token_ids_BT, batch.documents_BT, batch.positions_BT))
    penalty = 0.1 * logits[batch.targets_BT != IGNORE].logsumexp(-1).square().sum().item()
    assert plain.sums == {}
    assert penalty > 1
    assert penalized.sums["z_loss"] == pytest.approx(penalty, rel=1e-5)
    assert penalized.sums["next_token_loss"] == pytest.approx(plain.total.item(), rel=1e-5)
    assert penalized.total.item() == pytest.approx(plain.total.item() + penalty, rel=1e-5)
