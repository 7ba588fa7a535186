"""Parts of a model's first values, and of a folder's, are those of the whole."""

from typing import Any

import pytest
import torch

from bessemer.errors import BessemerError
from bessemer.model import ModelConfig, Transformer, load_model, save_model
from bessemer.model.config import MixtureConfig
from bessemer.model.weights import Box, DrawnWeights, FolderWeights, Weights
from bessemer.model.width import start_for_width

SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 50,
    "max_position_embeddings": 64,
}
EXPERTS = MixtureConfig(num_experts=4, experts_per_token=2, expert_size=12, shared_size=24)
SIGMOID = EXPERTS.model_copy(update={"scores": "sigmoid", "dense_layers": (0,)})
SHAPES = {
    "tied": ModelConfig(**SIZES, qk_norm=True),
    "untied, biases": ModelConfig(
        **SIZES, tie_word_embeddings=False, attention_bias=True, attention_out_bias=True, mlp_bias=True
    ),
    "gpt2": ModelConfig(**(SIZES | {"family": "gpt2", "num_key_value_heads": 4})),
    "experts": ModelConfig(**SIZES, attention_bias=True, mixture=EXPERTS),
    "sigmoid": ModelConfig(**SIZES, qk_norm=True, mixture=SIGMOID),
    "mixtral": ModelConfig(
        **SIZES, mixture=MixtureConfig(num_experts=4, experts_per_token=2, expert_size=12)
    ),
}


def boxes(shape: torch.Size) -> list[Box]:
    """All of it, and two parts that cross the borders of what is fused: heads, gates, experts."""
    whole = tuple(slice(0, size) for size in shape)
    middle = tuple(slice(size // 3, size // 3 + (size + 1) // 2) for size in shape)
    return [whole, middle, (slice(shape[0] // 2, shape[0]), *whole[1:])]


def assert_parts_of(weights: Weights, model: Transformer) -> None:
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("future.")}
    wanted = {name: boxes(value.shape) for name, value in state.items()}
    seen = set()
    for name, number, value in weights.read(wanted):
        assert torch.equal(value, state[name][wanted[name][number]]), (name, number)
        seen.add((name, number))
    assert len(seen) == 3 * len(state)


@pytest.mark.parametrize("base_width", [None, 16])
@pytest.mark.parametrize("name", SHAPES)
def test_drawn_parts_are_those_of_the_model_that_is_drawn_whole(name, base_width):
    config = SHAPES[name].model_copy(update={"future_tokens": 1 if name == "tied" else 0})
    model = Transformer(config).initialize(7)
    start_for_width(model, base_width)
    assert_parts_of(DrawnWeights(config, 7, base_width), model)


def test_an_untied_embedding_may_be_drawn_larger_and_the_rest_stays_as_it_is():
    config = SHAPES["untied, biases"]
    model, plain = Transformer(config).initialize(7, embedding_std=1.0), Transformer(config).initialize(7)
    assert_parts_of(DrawnWeights(config, 7, embedding_std=1.0), model)
    assert float(model.embedding.detach().std()) == pytest.approx(1.0, rel=0.05)
    torch.testing.assert_close(model.embedding, 50 * plain.embedding)
    rest = {name: value for name, value in model.state_dict().items() if name != "embedding"}
    assert all(torch.equal(value, plain.state_dict()[name]) for name, value in rest.items())


@pytest.mark.parametrize("name", SHAPES)
def test_parts_of_a_folder_are_those_of_the_model_that_is_read_whole(tmp_path, name):
    model = Transformer(SHAPES[name]).initialize(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in model.state_dict().values():
            value.add_(torch.randn(value.shape, generator=generator))
    save_model(model, tmp_path, tokenizer_folder=None, generation={}, card="", max_shard_bytes=9000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert_parts_of(FolderWeights(tmp_path), load_model(tmp_path))


def test_a_folder_that_lacks_a_tensor_is_refused_before_anything_is_read(tmp_path):
    save_model(Transformer(SHAPES["tied"]), tmp_path, tokenizer_folder=None, generation={}, card="")
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    with pytest.raises(BessemerError, match=r"model\.layers\.2\.self_attn\.q_proj\.weight: missing"):
        FolderWeights(tmp_path)
