import pytest
import torch

from bessemer.model.config import ModelConfig
from bessemer.model.transformer import Transformer


def small_model(seed=0, compute_dtype=torch.float32, **options) -> Transformer:
    """A model whose every parameter matters: none is left at its initial zero or one."""
    config = ModelConfig(
        **{
            "vocab_size": 40,
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "qk_norm": True,
            "max_position_embeddings": 64,
            **options,
        }
    )
    model = Transformer(config, compute_dtype).initialize(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def random_ids(*shape, seed=0):
    return torch.randint(40, shape, generator=torch.Generator().manual_seed(seed))


MIXTURE = {"num_experts": 4, "experts_per_token": 2, "expert_size": 24}
SHAPES = {
    "plain": {},
    "windows": {"sliding_window": 3, "window_layers": (1,)},
    "experts": {"mixture": MIXTURE},
    "gpt2": {"family": "gpt2", "num_key_value_heads": 4, "qk_norm": False},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_documents_give_the_logits_of_each_alone(shape):
    model = small_model(**SHAPES[shape])
    lengths = [5, 1, 9]
    documents = [random_ids(1, length, seed=length) for length in lengths]
    packed_BT = torch.cat(documents, dim=1)
    documents_BT = torch.repeat_interleave(torch.arange(3), torch.tensor(lengths)).unsqueeze(0)
    positions_BT = torch.cat([torch.arange(length) for length in lengths]).unsqueeze(0)
    packed = model.logits(model(packed_BT, documents_BT, positions_BT))
    alone = torch.cat([model.logits(model(document)) for document in documents], dim=1)
    torch.testing.assert_close(packed, alone, rtol=1e-5, atol=1e-5)


def test_packed_and_separate_documents_give_the_same_gradient():
    model = small_model()
    first, second = random_ids(1, 6), random_ids(1, 4, seed=1)

    def gradients(*forwards):
        model.zero_grad()
        for arguments in forwards:
            model.logits(model(*arguments)).logsumexp(-1).sum().backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    documents_BT = torch.tensor([[7] * 6 + [2] * 4])
    positions_BT = torch.cat((torch.arange(6), torch.arange(4))).unsqueeze(0)
    packed = gradients((torch.cat((first, second), dim=1), documents_BT, positions_BT))
    separate = gradients((first,), (second,))
    for mine, theirs in zip(packed, separate, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_token_never_sees_what_comes_after_it(shape):
    model = small_model(**SHAPES[shape])
    token_ids_BT = random_ids(1, 10)
    changed_BT = token_ids_BT.clone()
    changed_BT[0, 6] = (changed_BT[0, 6] + 1) % 40
    before, after = model(token_ids_BT), model(changed_BT)
    torch.testing.assert_close(before[:, :6], after[:, :6], rtol=0, atol=1e-6)
    assert (before[:, 6:] - after[:, 6:]).abs().amax(-1).min() > 1e-4


def test_every_parameter_receives_a_gradient():
    everywhere = {"attention_bias": True, "attention_out_bias": True}
    shapes = [
        {**everywhere, "mlp_bias": True, "qk_norm": False, "tie_word_embeddings": False},
        {**everywhere, "mixture": MIXTURE},
        {"mixture": {**MIXTURE, "shared_size": 24, "scores": "sigmoid"}},
        {"mixture": {**MIXTURE, "shared_size": 24}, "qk_norm": False},
        SHAPES["gpt2"],
    ]
    for options in shapes:
        model = small_model(**options)
        model.logits(model(random_ids(4, 16))).logsumexp(-1).sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters()), options


def test_a_window_hides_what_lies_before_it():
    """Two layers of 3 tokens reach 4 tokens back."""
    model = small_model(sliding_window=3)
    token_ids_BT = random_ids(1, 12)
    changed_BT = token_ids_BT.clone()
    changed_BT[0, 2] = (changed_BT[0, 2] + 1) % 40
    difference = (model(token_ids_BT) - model(changed_BT)).abs().amax(-1)[0]
    assert (difference > 1e-6).nonzero().flatten().tolist() == [2, 3, 4, 5, 6]


def test_initialization_depends_on_the_seed_alone():
    config = small_model().config
    torch.manual_seed(1)
    first = Transformer(config).initialize(5).state_dict()
    torch.manual_seed(2)
    second = Transformer(config).initialize(5).state_dict()
    other = Transformer(config).initialize(6).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["embedding"], other["embedding"])


def test_an_initial_model_is_nearly_uniform_and_its_blocks_are_the_identity():
    config = ModelConfig(vocab_size=512, hidden_size=64, num_hidden_layers=3, num_attention_heads=4)
    model = Transformer(config).initialize(0)
    token_ids_BT = torch.randint(512, (4, 32), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        logits = model.logits(model(token_ids_BT))
        x = model.embedding[token_ids_BT]
        expected = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + config.rms_norm_eps)
        torch.testing.assert_close(model(token_ids_BT), expected)
    loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), token_ids_BT[:, 1:].flatten())
    assert float(loss) == pytest.approx(torch.tensor(512.0).log().item(), abs=0.1)


def test_bf16_compute_stays_near_float32_and_keeps_float32_gradients():
    exact, coarse = small_model(), small_model(compute_dtype=torch.bfloat16)
    token_ids_BT = random_ids(2, 12)
    hidden = coarse(token_ids_BT)
    logits = coarse.logits(hidden)
    assert (hidden.dtype, logits.dtype) == (torch.bfloat16, torch.float32)
    expected = exact.logits(exact(token_ids_BT))
    assert (logits - expected).abs().mean() < 0.03 * expected.abs().mean()
    logits.logsumexp(-1).sum().backward()
    assert all(parameter.grad.dtype == torch.float32 for parameter in coarse.parameters())


@pytest.mark.parametrize("shape", SHAPES)
def test_a_model_held_in_its_compute_dtype_computes_the_same(shape):
    model = small_model(compute_dtype=torch.bfloat16, **SHAPES[shape])
    held = model.in_compute_dtype()
    assert held.blocks[0].qkv.dtype == torch.bfloat16
    assert held.final_norm.dtype == torch.float32
    token_ids_BT = random_ids(2, 12)
    with torch.inference_mode():
        torch.testing.assert_close(held(token_ids_BT), model(token_ids_BT), rtol=0, atol=0)
    exact = small_model()
    assert exact.in_compute_dtype() is exact


def test_sequences_beyond_the_last_position_are_refused():
    model = small_model(max_position_embeddings=8)
    with pytest.raises(ValueError, match="9 tokens do not fit max_position_embeddings 8"):
        model(random_ids(1, 9))


def test_a_tiny_model_learns_to_copy_the_token_before():
    config = ModelConfig(
        vocab_size=12, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, qk_norm=True
    )
    model = Transformer(config).initialize(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(0)
    loss = torch.tensor(0.0)
    for _ in range(120):
        token_ids_BT = torch.randint(12, (16, 12), generator=generator)
        logits = model.logits(model(token_ids_BT))
        loss = torch.nn.functional.cross_entropy(logits[:, 1:].flatten(0, 1), token_ids_BT[:, :-1].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
