import pytest
from pydantic import ValidationError

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig, flops_per_token, parameter_count
from bessemer.model.huggingface import config_from_huggingface, config_to_huggingface
from bessemer.model.transformer import Transformer

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}


def test_every_problem_of_a_config_is_reported_at_once():
    with pytest.raises(ValidationError) as raised:
        ModelConfig(
            **SMALL, num_key_value_heads=3, head_dim=7, rope_theta=0.0, qk_norm=True, attention_bias=True
        )
    message = str(raised.value)
    for word in ("num_key_value_heads is 3", "1, 2, 4", "head_dim is 7", "rope_theta is 0.0", "qk_norm"):
        assert word in message


def test_sizes_left_out_follow_from_the_others():
    config = ModelConfig(**SMALL)
    assert (config.num_key_value_heads, config.head_dim, config.intermediate_size) == (4, 8, 128)


@pytest.mark.parametrize(
    "options", [{}, {"tie_word_embeddings": False}, {"qk_norm": True}, {"attention_bias": True}]
)
def test_parameter_count_equals_the_built_model(options):
    config = ModelConfig(**SMALL, num_key_value_heads=2, head_dim=10, **options)
    assert parameter_count(config) == sum(p.numel() for p in Transformer(config).parameters())


def test_training_flops_equal_three_times_the_matrix_products_of_a_forward_pass():
    config = ModelConfig(**SMALL, num_key_value_heads=2)
    context, hidden, width, kv_width = 16, 32, 32, 16
    projections = hidden * (width + 2 * kv_width) + width * hidden
    scores_and_values = 2 * context * width
    feed_forward = 3 * hidden * config.intermediate_size
    layers = 2 * (projections + scores_and_values + feed_forward)
    forward = 2 * (layers + hidden * config.vocab_size)
    norms = 2 * (2 * 2 * hidden + hidden)  # PaLM's N counts the norms' weights as if they were matrices
    assert flops_per_token(config, context) == 3 * (forward + norms)


@pytest.mark.parametrize("options", [{}, {"qk_norm": True}, {"attention_bias": True}])
def test_a_config_survives_the_way_through_config_json(options):
    config = ModelConfig(
        **SMALL, num_key_value_heads=2, head_dim=6, rope_theta=5e5, rms_norm_eps=1e-5, **options
    )
    assert config_from_huggingface(config_to_huggingface(config)) == config


def test_both_generations_of_config_json_are_read():
    sizes = {**SMALL, "model_type": "llama", "intermediate_size": 64}
    older = {**sizes, "rope_theta": 5e5, "rope_scaling": None, "torch_dtype": "bfloat16"}
    newer = {**sizes, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}, "dtype": "bfloat16"}
    assert config_from_huggingface(older) == config_from_huggingface(newer)
    assert config_from_huggingface(older).rope_theta == 5e5


def test_settings_that_would_change_the_computation_are_refused_together():
    values = {
        **SMALL,
        "model_type": "llama",
        "hidden_act": "gelu",
        "mlp_bias": True,
        "attention_bias": True,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }
    with pytest.raises(BessemerError) as raised:
        config_from_huggingface(values)
    for word in ("intermediate_size is missing", "'gelu'", "mlp_bias", "attention_bias", "'llama3'"):
        assert word in str(raised.value)


def test_a_sliding_window_that_would_hide_tokens_is_refused():
    values = {
        **SMALL,
        "model_type": "mistral",
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
    }
    assert config_from_huggingface({**values, "sliding_window": 64}).max_position_embeddings == 64
    with pytest.raises(BessemerError, match="sliding_window 32 is shorter"):
        config_from_huggingface({**values, "sliding_window": 32})


def test_an_unknown_model_type_names_the_known_ones():
    with pytest.raises(BessemerError, match=r"'gpt2' is not supported.*llama, mistral, qwen2, qwen3"):
        config_from_huggingface({"model_type": "gpt2"})
