"""Multi-token prediction: what it predicts, that it sees nothing it should not, and that export drops it."""

import pytest
import torch
from torch.nn import functional as F

from bessemer.model import ModelConfig, Transformer, check_reload, load_model, save_model
from bessemer.model.future import future_targets, shift
from bessemer.objectives.language_modeling import IGNORE, LanguageModeling, future_loss
from bessemer.training.batches import Batch
from bessemer.training.optimizers import OptimizerConfig, Optimizers


def model_with(future_tokens, seed=0):
    config = ModelConfig(
        vocab_size=24,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        qk_norm=True,
        future_tokens=future_tokens,
        max_position_embeddings=64,
    )
    model = Transformer(config).initialize(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def batch_of(token_ids, documents=None):
    documents = torch.zeros_like(token_ids) if documents is None else documents
    is_same = documents[:, 1:] == documents[:, :-1]
    targets = torch.where(is_same, token_ids[:, 1:], IGNORE)
    inputs, documents = token_ids[:, :-1], documents[:, :-1]
    starts = torch.cat((torch.ones_like(documents[:, :1]), (documents[:, 1:] != documents[:, :-1]).int()), 1)
    firsts = torch.where(starts.bool(), torch.arange(inputs.shape[1]), 0).cummax(1).values
    return Batch(inputs, targets, documents.int(), torch.arange(inputs.shape[1]) - firsts)


def random_ids(rows, length, seed=0):
    return torch.randint(24, (rows, length), generator=torch.Generator().manual_seed(seed))


def test_targets_further_ahead_stay_inside_their_document():
    token_ids = torch.tensor([[1, 2, 3, 4, 5, 6, 7]])
    batch = batch_of(token_ids, torch.tensor([[0, 0, 0, 0, 1, 1, 1]]))
    assert batch.targets_BT.tolist() == [[2, 3, 4, IGNORE, 6, 7]]
    one, two = (future_targets(batch.targets_BT, batch.documents_BT, d, IGNORE) for d in (1, 2))
    assert one.tolist() == [[3, 4, IGNORE, IGNORE, 7, IGNORE]]
    assert two.tolist() == [[4, IGNORE, IGNORE, IGNORE, IGNORE, IGNORE]]
    assert shift(token_ids, 9, 0).tolist() == [[0] * 7]


def test_a_future_block_sees_the_tokens_before_its_target_and_none_after():
    model = model_with(1)
    token_ids = random_ids(1, 13)
    batch = batch_of(token_ids)

    def states(token_ids):
        hidden = model(token_ids, batch.documents_BT, batch.positions_BT)
        return model.future_hidden(hidden, token_ids, batch.documents_BT, batch.positions_BT)[0]

    changed = batch.token_ids_BT.clone()
    changed[0, 6] = (changed[0, 6] + 1) % 24
    difference = (states(batch.token_ids_BT) - states(changed)).abs().amax(-1)[0]
    # Position 5 predicts token 7 from token 6 and what came before.
    assert (difference > 1e-6).nonzero().flatten().tolist() == [5, 6, 7, 8, 9, 10, 11]


def test_packed_documents_have_the_future_loss_of_each_alone():
    model = model_with(2)
    first, second = random_ids(1, 8), random_ids(1, 6, seed=1)
    documents = torch.tensor([[0] * 8 + [1] * 6])
    packed = batch_of(torch.cat((first, second), dim=1), documents)
    hidden = model(packed.token_ids_BT, packed.documents_BT, packed.positions_BT)
    together = future_loss(model, hidden, packed)
    alone = torch.zeros(())
    for ids in (first, second):
        batch = batch_of(ids)
        hidden = model(batch.token_ids_BT, batch.documents_BT, batch.positions_BT)
        alone = alone + future_loss(model, hidden, batch)
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-4)


def test_the_objective_adds_the_weighted_loss_and_reports_both():
    model, batch = model_with(1), batch_of(random_ids(2, 12))
    with torch.no_grad():
        loss = LanguageModeling(future_weight=0.5).loss(model, batch)
        hidden = model(batch.token_ids_BT)
        logits = model.logits(hidden)
        plain = F.cross_entropy(logits.flatten(0, 1), batch.targets_BT.flatten(), reduction="sum")
        future = future_loss(model, hidden, batch)
    assert float(loss.total) == pytest.approx(float(plain + 0.5 * future), rel=1e-5)
    assert loss.sums == {
        "next_token_loss": pytest.approx(float(plain), rel=1e-5),
        "future_loss": pytest.approx(float(future), rel=1e-5),
    }


def test_it_learns_what_only_the_token_after_next_tells():
    """A token repeats two places later: the block for the token after next can know it, at once."""
    model = model_with(1)
    optimizers = Optimizers(model, OptimizerConfig(kind="adamw", learning_rate=5e-3))
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(60):
        pairs = torch.randint(24, (16, 2), generator=generator)
        batch = batch_of(pairs.repeat(1, 5))
        optimizers.zero_grad()
        loss = LanguageModeling().loss(model, batch)
        loss.total.div(LanguageModeling().count(batch)).backward()
        optimizers.step()
        losses.append(loss.sums["future_loss"] / (16 * 8))
    assert losses[0] > 2.5
    assert losses[-1] < 1.0


def test_a_saved_folder_holds_the_model_alone(tmp_path):
    model = model_with(1)
    save_model(model, tmp_path, tokenizer_folder=None, generation={}, card="")
    loaded = load_model(tmp_path)
    assert loaded.config == model.config.model_copy(update={"future_tokens": 0})
    assert len(loaded.future) == 0
    assert check_reload(model, tmp_path, seed=0) == 0.0


def test_the_model_itself_is_drawn_the_same_with_and_without_future_blocks():
    untied = {"tie_word_embeddings": False}
    plain = Transformer(model_with(0).config.model_copy(update=untied)).initialize(3).state_dict()
    more = Transformer(model_with(1).config.model_copy(update=untied)).initialize(3).state_dict()
    assert all(torch.equal(more[name], tensor) for name, tensor in plain.items())
    assert any(name.startswith("future.0.block.") for name in more)
