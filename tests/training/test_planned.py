"""Faults between the stages of a recipe, told before the first of them runs."""

import json

import pytest

from bessemer.errors import ConfigError
from bessemer.model.config import ModelConfig
from bessemer.model.folder import save_model
from bessemer.model.transformer import Transformer
from bessemer.recipe import parse_recipe

GPT2 = {"depth": 1, "hidden_size": 32, "num_attention_heads": 2, "family": "gpt2"}
BEFORE = ["collect", "curate", "tokenizer", "tokens"]


def resolve(*stages):
    return parse_recipe(json.dumps({"stages": [*BEFORE, *stages]}), "recipe.yaml")


def pretrain(**options):
    return {"pretrain": {"model": GPT2, **options}}


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        (["synthesize", pretrain(), {"sft": {"sequence_length": 512}}], "'sft': sequence_length 512 is more"),
        (
            [pretrain(), "synthesize", "sft", "prefer", {"dpo": {"sequence_length": 300}}],
            "'dpo': sequence_length 300",
        ),
        ([pretrain(sequence_length=128), "evaluate"], "the model of 'pretrain': sequence_length 256"),
        ([pretrain(), {"midtrain": {"tokens": "1M", "rope_theta": 50000}}], "vectors for 256 positions"),
        ([pretrain(), {"midtrain": {"tokens": "1M", "sequence_length": 512}}], "so it cannot be extended"),
        (
            [pretrain(), "synthesize", {"sft": {"optimizer": {"embedding_learning_rate": 0.1}}}],
            "'sft': optimizer.embedding_learning_rate is for an untied embedding",
        ),
        (
            [pretrain(), "synthesize", {"sft": {"parallel": {"tensor": 8}}}],
            "'sft': .*8.* heads",
        ),
        (
            [pretrain(mixture={"tokens": 1, "code": 2})],
            "'pretrain': mixture names code, and no earlier stage .* there are: tokens",
        ),
        (
            [pretrain(mixture={"tokens": 1}, curriculum=[{"after": 0.5, "mixture": {"text": 1}}])],
            "curriculum.0.mixture names text",
        ),
    ],
)  # fmt: skip
def test_what_a_later_stage_would_refuse_is_a_fault_of_the_recipe(stages, message):
    with pytest.raises(ConfigError, match=message):
        resolve(*stages)


def test_a_context_that_is_extended_on_the_way_is_not_a_fault():
    model = {**GPT2, "family": "llama", "max_position_embeddings": 128}
    longer = {"midtrain": {"tokens": "1M", "sequence_length": 512}}
    stages = [{"pretrain": {"model": model, "sequence_length": 128}}, "synthesize"]
    sft = {"sft": {"sequence_length": 512}}
    resolve(*stages, longer, sft)
    with pytest.raises(ConfigError, match="sequence_length 512 is more than the model's 128"):
        resolve(*stages, sft)


def test_the_positions_of_a_model_that_others_trained_are_read_from_its_folder(tmp_path):
    shape = ModelConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=96
    )
    model = Transformer(shape).initialize(0)
    save_model(model, tmp_path, tokenizer_folder=None, generation={}, card="")
    given = {"pretrained": {"path": str(tmp_path)}}
    resolve("synthesize", given, {"sft": {"sequence_length": 96}})
    with pytest.raises(ConfigError, match="more than the model's 96 positions"):
        resolve("synthesize", given, {"sft": {"sequence_length": 97}})
    resolve("synthesize", {"pretrained": {"path": str(tmp_path / "later")}}, "sft")


def test_tokens_of_another_tokenizer_are_a_fault_of_the_recipe():
    other = [{"tokenizer": {"name": "other"}}, {"tokens": {"name": "code", "from": ["other"]}}]
    with pytest.raises(ConfigError, match=r"tokens of 'code' are encoded with 'other', .* takes 'tokenizer'"):
        resolve(*other, {"pretrain": {"from": ["code", "tokenizer"]}})
    with pytest.raises(
        ConfigError, match=r"tokens of 'tokens' are encoded with 'tokenizer', .* takes 'other'"
    ):
        resolve(*other, {"pretrain": {"mixture": {"tokens": 1, "code": 1}}})
    with pytest.raises(ConfigError, match=r"model is trained with the tokenizer 'tokenizer', .* of 'other'"):
        resolve(
            {"pretrain": {"name": "base"}},
            *other,
            {"midtrain": {"tokens": "1M", "from": ["base", "code", "other"]}},
        )
    resolve({"pretrain": {"name": "base"}}, *other, {"pretrain": {"from": ["code", "other"]}})


@pytest.mark.parametrize("stage", ["pretrain", "midtrain"])
def test_a_stage_of_the_curriculum_that_no_step_falls_into_is_a_fault(stage):
    points = [{"after": after, "mixture": {"tokens": 1}} for after in (0.5, 0.95)]
    options = {"tokens": 20480, "batch_tokens": 2048, "mixture": {"tokens": 1}}
    stages = ["pretrain"] if stage == "midtrain" else []
    resolve(*stages, {stage: {**options, "curriculum": points[:1], "name": "mine"}})
    with pytest.raises(ConfigError, match=r"the stage after 0.95 of the run has no step of its 10: lower"):
        resolve(*stages, {stage: {**options, "curriculum": points, "name": "mine"}})
