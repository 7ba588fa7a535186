import pytest
from pydantic import ValidationError

from bessemer.errors import BessemerError
from bessemer.model.config import ModelConfig, flops_per_token, parameter_count
from bessemer.model.huggingface import config_from_huggingface, config_to_huggingface
from bessemer.model.transformer import Transformer

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
EXPERTS = {"num_experts": 4, "experts_per_token": 2, "expert_size": 16}
SHARED = {**EXPERTS, "shared_size": 32}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 256,
}


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
    "options",
    [
        {},
        {"tie_word_embeddings": False},
        {"qk_norm": True},
        {"attention_bias": True},
        {"attention_bias": True, "attention_out_bias": True, "mlp_bias": True},
        {"qk_norm": True, "mixture": {**EXPERTS, "dense_layers": (0,)}},
        {"mixture": SHARED},
        {"qk_norm": True, "mixture": {**SHARED, "scores": "sigmoid"}},
        {"family": "gpt2", "num_key_value_heads": 4, "head_dim": 8},
    ],
)
def test_parameter_count_equals_the_built_model(options):
    config = ModelConfig(**{**SMALL, "num_key_value_heads": 2, "head_dim": 10, **options})
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


def test_a_window_and_idle_experts_are_not_counted_as_work():
    dense = ModelConfig(**SMALL, intermediate_size=32)
    windowed = ModelConfig(**SMALL, intermediate_size=32, sliding_window=8, window_layers=(0,))
    width = 32
    assert flops_per_token(dense, 64) - flops_per_token(windowed, 64) == 12 * width * (64 - 8)
    few, many = (ModelConfig(**SMALL, mixture={**EXPERTS, "num_experts": number}) for number in (4, 16))
    routers = 2 * (16 - 4) * 32
    assert flops_per_token(many, 64) - flops_per_token(few, 64) == 6 * routers


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"qk_norm": True},
        {"attention_bias": True},
        {"attention_bias": True, "attention_out_bias": True},
        {"mlp_bias": True},
        {"rope_scaling": {"rope_type": "linear", "factor": 2.0}},
        {"rope_scaling": YARN},
        {"rope_scaling": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5, "truncate": False}},
        {"rope_scaling": LLAMA3},
        {"sliding_window": 8},
        {"sliding_window": 8, "window_layers": (1,)},
        {"sliding_window": 8, "window_layers": (0,), "attention_bias": True},
        {"sliding_window": 8, "window_layers": (0,), "qk_norm": True},
        {"mixture": EXPERTS, "intermediate_size": 16, "sliding_window": 8},
        {"qk_norm": True, "mixture": {**EXPERTS, "normalize_weights": False, "dense_layers": (1,)}},
        {"mixture": SHARED, "sliding_window": 8, "window_layers": (0,)},
        {
            "qk_norm": True,
            "mixture": {
                **SHARED,
                "scores": "sigmoid",
                "weight_scale": 2.5,
                "dense_layers": (0,),
                "balance_loss": 0.0,
            },
        },
        {"family": "gpt2", "num_key_value_heads": 4, "head_dim": 8, "rope_theta": 10_000.0},
    ],
)
def test_a_config_survives_the_way_through_config_json(options):
    sizes = {"num_key_value_heads": 2, "head_dim": 6, "rope_theta": 5e5, "rms_norm_eps": 1e-5}
    config = ModelConfig(**{**SMALL, **sizes, **options})
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
        "model_type": "qwen2",
        "hidden_act": "gelu",
        "mlp_bias": True,
        "attention_bias": True,
        "rope_scaling": {"rope_type": "dynamic", "factor": 8.0},
        "layer_types": ["full_attention", "chunked_attention"],
        "quantization_config": {"bits": 4},
    }
    with pytest.raises(BessemerError) as raised:
        config_from_huggingface(values)
    for word in (
        "intermediate_size is missing",
        "'gelu'",
        "mlp_bias",
        "attention_bias",
        "'dynamic'",
        "chunked_attention",
        "quantization_config",
    ):
        assert word in str(raised.value)


@pytest.mark.parametrize("model_type", ["llama", "gpt2"])
def test_values_of_the_wrong_kind_are_named_together(model_type):
    wrong = {
        "num_attention_heads": 0,
        "hidden_size": "wide",
        "head_dim": 1.5,
        "rope_scaling": "yarn",
        "layer_types": "full_attention",
    }
    with pytest.raises(BessemerError) as raised:
        config_from_huggingface({**SMALL, "model_type": model_type, "intermediate_size": 64, **wrong})
    assert all(name in str(raised.value) for name in wrong)


def test_a_rope_scaling_that_lacks_its_numbers_names_them():
    values = {**SMALL, "model_type": "llama", "intermediate_size": 64}
    with pytest.raises(BessemerError) as raised:
        config_from_huggingface({**values, "rope_scaling": {"rope_type": "llama3", "factor": 8.0}})
    assert "low_freq_factor" in str(raised.value)
    assert "high_freq_factor" in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sliding_window": 4, "window_layers": (0, 7)}, r"window_layers names \[7\]"),
        ({"window_layers": (0,)}, "without a sliding_window"),
        ({"sliding_window": 0}, "sliding_window is 0"),
        ({"mlp_bias": True, "qk_norm": True}, r"qwen3, the nearest, has none or qkvo"),
        ({"attention_out_bias": True}, "llama, the nearest"),
        ({"attention_bias": True, "mixture": EXPERTS}, "mixtral, the nearest"),
        ({"mixture": {**EXPERTS, "experts_per_token": 9}}, "more than the 4 experts"),
        ({"mixture": {**EXPERTS, "dense_layers": (0,)}}, "turn qk_norm on for qwen3_moe"),
        ({"mixture": {**EXPERTS, "scores": "sigmoid"}}, "needs qk_norm"),
        ({"mixture": EXPERTS, "sliding_window": 4, "window_layers": (0,)}, "one sliding_window for all"),
        ({"family": "gpt2", "num_key_value_heads": 2}, "leave num_key_value_heads out"),
        ({"family": "gpt2", "sliding_window": 8}, "gpt2 has none"),
    ],
)
def test_a_shape_that_no_model_class_holds_is_refused_with_its_mend(options, message):
    with pytest.raises(ValidationError, match=message):
        ModelConfig(**SMALL, **options)


def test_an_unknown_model_type_names_the_known_ones():
    with pytest.raises(BessemerError, match=r"'bert' is not supported.*gpt2, llama, mistral"):
        config_from_huggingface({"model_type": "bert"})
