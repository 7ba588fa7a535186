"""Families from a recipe: what each sets, what contradicts it, and what its folder computes."""

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from bessemer.errors import ConfigError
from bessemer.model.families import FAMILIES, model_type
from bessemer.model.folder import load_model
from bessemer.recipe import parse_recipe
from bessemer.tokenization.tokenizer import load_tokenizer, train_bpe
from bessemer.tokenization.tokens_stage import TokensConfig, encode_tokens
from bessemer.training.config import Cadence
from bessemer.training.dial import ModelDial, model_config
from bessemer.training.pretrain import PretrainConfig, pretrain
from stage_helpers import artifact, said, stage_context, write_documents

EXPERTS = {"num_experts": 4, "experts_per_token": 2, "expert_size": 16}
SHARED = {**EXPERTS, "shared_size": 16}
SMALL = {"depth": 2, "hidden_size": 32, "num_attention_heads": 2}
FAMILY_KEYS = {
    "gpt2": {},
    "llama": {},
    "mistral": {"sliding_window": 8},
    "ministral": {"sliding_window": 8, "window_layers": [0]},
    "qwen2": {},
    "qwen3": {},
    "mixtral": {"mixture": EXPERTS},
    "qwen2_moe": {"mixture": SHARED},
    "qwen3_moe": {"mixture": EXPERTS},
    "dots1": {"mixture": {**SHARED, "scores": "sigmoid"}},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_is_named_and_its_own_keys_follow(family):
    dial = ModelDial.model_validate({**SMALL, "family": family, **FAMILY_KEYS[family]})
    assert model_type(model_config(dial, 300)) == family


def test_gpt2_has_the_usual_proportions_and_no_position_that_is_never_trained():
    shape = model_config(ModelDial(depth=4, family="gpt2"), 300, sequence_length=128)
    assert (shape.hidden_size, shape.intermediate_size, shape.num_key_value_heads) == (256, 1024, 4)
    assert (shape.max_position_embeddings, shape.rms_norm_eps) == (128, 1e-5)
    assert shape.tie_word_embeddings
    assert model_config(ModelDial(family="gpt2"), 300).max_position_embeddings == 1024


def test_rows_longer_than_the_default_lengthen_what_a_rotary_model_is_declared_for():
    assert model_config(ModelDial(), 300, sequence_length=128).max_position_embeddings == 2048
    assert model_config(ModelDial(), 300, sequence_length=4096).max_position_embeddings == 4096


@pytest.mark.parametrize(
    ("keys", "biases"),
    [
        ({"family": "qwen2"}, (True, False, False)),
        ({"family": "llama", "attention_bias": True}, (True, True, False)),
        ({"family": "llama", "attention_bias": True, "mlp_bias": True}, (True, True, True)),
        ({"family": "qwen3", "attention_bias": True}, (True, True, False)),
        ({"attention_bias": True}, (True, True, False)),
        ({"qk_norm": False, "attention_bias": True, "attention_out_bias": False}, (True, False, False)),
        ({}, (False, False, False)),
    ],
)
def test_attention_bias_means_what_the_familys_config_json_means_by_it(keys, biases):
    shape = model_config(ModelDial(**SMALL, **keys), 300)
    assert (shape.attention_bias, shape.attention_out_bias, shape.mlp_bias) == biases


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"family": "gpt2", "rope_theta": 1e4}, "model.rope_theta: gpt2 learns a vector for every position"),
        ({"family": "gpt2", "qk_norm": True}, "model.qk_norm: gpt2 has none"),
        ({"family": "gpt2", "attention_bias": False, "mlp_bias": False}, "gpt2 has biases throughout"),
        ({"family": "gpt2", "num_key_value_heads": 1}, "leave num_key_value_heads out"),
        ({"family": "gpt2", "sliding_window": 8}, "gpt2 has none"),
        ({"family": "gpt2", "mixture": EXPERTS}, "choose the llama family"),
        ({"family": "gpt2", "future_tokens": 1}, "choose the llama family"),
        (
            {"family": "gpt2", "max_position_embeddings": 64},
            "sequence_length 256 is more than the model's 64",
        ),
        ({"family": "llama", "qk_norm": True}, "family is llama .* the other keys make a qwen3"),
        ({"family": "qwen2", "attention_bias": False}, "family is qwen2 .* the other keys make a llama"),
        ({"family": "mistral"}, "family is mistral .one sliding_window .* make a llama"),
        ({"family": "qwen3_moe"}, "family is qwen3_moe .* make a qwen3"),
        ({"family": "qwen3", "mlp_bias": True}, "fit no Hugging Face model class; qwen3"),
        ({"family": "gptj"}, "gptj"),
    ],
)
def test_keys_that_contradict_the_family_are_faults_of_the_recipe(keys, message):
    options = json.dumps({"model": {**SMALL, **keys}})
    with pytest.raises(ConfigError, match=message):
        parse_recipe(f"stages: [collect, curate, tokenizer, tokens, pretrain: {options}]", "recipe.yaml")


def remarks(**model):
    return PretrainConfig.model_validate({"model": {**SMALL, **model}}).remarks()


def test_positions_that_no_row_reaches_are_remarked():
    assert remarks(family="gpt2") == remarks() == []
    (remark,) = remarks(family="gpt2", max_position_embeddings=512)
    assert "512 is more than sequence_length 256" in remark


def test_experts_that_transformers_cannot_multiply_by_default_are_remarked_with_the_mend():
    assert remarks(mixture=EXPERTS) == []
    (remark,) = remarks(mixture={**EXPERTS, "expert_size": 20})
    assert "model.mixture.expert_size 20" in remark
    assert remark.endswith("24 would do")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    corpus = [(f"d{n}", f"The number {n} is a number. What is it? It is {n % 3}.") for n in range(40)]
    train_bpe((text for _, text in corpus), 280).save(folder / "tokenizer")
    tokenizer = artifact(folder / "tokenizer", "tokenizer")
    documents = write_documents(folder / "documents", [corpus])
    tokens = stage_context(folder / "tokens", documents, tokenizer)
    encode_tokens(TokensConfig(validation_share=0.2), tokens)
    return tokenizer, artifact(tokens.output, "tokens")


@pytest.mark.parametrize("family", ["gpt2", "qwen2"])
def test_a_family_trained_from_a_recipe_opens_in_transformers_with_the_same_logits(family, inputs, tmp_path):
    config = PretrainConfig(
        model=ModelDial(**SMALL, family=family), tokens=2048, sequence_length=32, batch_tokens=128,
        every=Cadence(log=1, check=8, checkpoint=4), sample_prompts=("The",),
    )  # fmt: skip
    context = stage_context(tmp_path, *inputs)
    pretrain(config, context)
    losses = [row["loss"] for row in map(json.loads, context.metrics_path.open()) if "loss" in row]
    assert losses[-1] < losses[0] - 0.3
    assert f"{family}, " in said(context)
    ours, theirs = load_model(context.output).eval(), AutoModelForCausalLM.from_pretrained(context.output)
    tokenizer = load_tokenizer(context.output)
    assert theirs.config.model_type == family
    assert theirs.config.bos_token_id == tokenizer.end_of_text_id
    assert theirs.config.eos_token_id == [tokenizer.end_of_turn_id, tokenizer.end_of_text_id]
    token_ids = torch.randint(280, (2, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(
            ours.logits(ours(token_ids)), theirs(token_ids).logits, rtol=1e-4, atol=1e-4
        )
        biases = [value for name, value in ours.named_parameters() if name.endswith("_bias")]
        assert all(value.abs().max() > 0 for value in biases)
        assert biases
