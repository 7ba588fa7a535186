"""Folders on disk, with transformers as the oracle in both directions."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3Config

from bessemer.errors import BessemerError
from bessemer.model import ModelConfig, Transformer, check_reload, load_model, save_model
from bessemer.model.tensor_names import huggingface_tensors

SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}
TOKEN_IDS_BT = torch.randint(97, (2, 40), generator=torch.Generator().manual_seed(0))


def their_model():
    config = Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=32, tie_word_embeddings=True)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config).eval()


def our_model(**options):
    model = Transformer(ModelConfig(**{**SIZES, "num_key_value_heads": 2, **options})).initialize(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def save(model, folder, **options):
    save_model(model, folder, **{"tokenizer_folder": None, "generation": {}, "card": "", **options})
    return folder


def our_logits(model):
    with torch.inference_mode():
        return model.logits(model(TOKEN_IDS_BT))


def their_logits(model):
    with torch.inference_mode():
        return model(TOKEN_IDS_BT).logits


def test_sharded_folders_are_read(tmp_path):
    theirs = their_model()
    theirs.save_pretrained(tmp_path, max_shard_size="100KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    torch.testing.assert_close(our_logits(load_model(tmp_path)), their_logits(theirs), rtol=0, atol=1e-4)


def test_sharded_folders_are_written_as_transformers_reads_them(tmp_path):
    model = our_model()
    save(model, tmp_path, max_shard_bytes=60_000)
    shards = sorted(path.name for path in tmp_path.glob("*.safetensors"))
    assert len(shards) > 2
    assert shards[0] == f"model-00001-of-{len(shards):05d}.safetensors"
    assert all(path.stat().st_size < 62_000 for path in tmp_path.glob("*.safetensors"))
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    torch.testing.assert_close(our_logits(model), their_logits(theirs), rtol=0, atol=1e-4)
    assert check_reload(model, tmp_path, seed=0) == 0.0


def test_a_folder_that_is_written_again_holds_nothing_of_the_first_save(tmp_path):
    save(our_model(), tmp_path, max_shard_bytes=60_000)
    model = our_model(hidden_size=32)
    save(model, tmp_path)
    assert [path.name for path in tmp_path.glob("model*")] == ["model.safetensors"]
    assert check_reload(model, tmp_path, seed=0) == 0.0
    save(model, tmp_path, max_shard_bytes=60_000)
    assert not (tmp_path / "model.safetensors").exists()
    assert check_reload(model, tmp_path, seed=0) == 0.0


def test_the_same_model_is_written_to_the_same_bytes(tmp_path):
    first, second = save(our_model(), tmp_path / "a"), save(our_model(), tmp_path / "b")
    names = sorted(path.name for path in first.iterdir())
    assert names == ["README.md", "config.json", "generation_config.json", "model.safetensors"]
    assert all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


def test_a_reloaded_model_has_exactly_the_same_logits(tmp_path):
    model = our_model(tie_word_embeddings=False)
    assert check_reload(model, save(model, tmp_path), seed=0) == 0.0


def test_check_reload_sees_a_changed_weight(tmp_path):
    model = our_model()
    save(model, tmp_path)
    with torch.no_grad():
        model.blocks[1].down[0, 0] += 1.0
    assert check_reload(model, tmp_path, seed=0) > 1e-3


def test_a_bf16_folder_is_half_the_size_and_loads_into_float32(tmp_path):
    model = our_model()
    whole = save(model, tmp_path / "float32") / "model.safetensors"
    half = save(model, tmp_path / "bf16", dtype=torch.bfloat16) / "model.safetensors"
    assert half.stat().st_size < 0.52 * whole.stat().st_size
    reloaded = load_model(half.parent)
    assert reloaded.embedding.dtype == torch.float32
    assert torch.equal(reloaded.embedding, model.embedding.bfloat16().float())


def test_the_tokenizer_and_the_special_ids_go_with_the_model(tmp_path):
    tokenizer_folder = tmp_path / "tokenizer"
    tokenizer_folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "unrelated.txt"):
        (tokenizer_folder / name).write_text(name)
    generation = {"bos_token_id": 0, "eos_token_id": [1, 2], "temperature": 0.7, "do_sample": True}
    folder = save(
        our_model(),
        tmp_path / "model",
        tokenizer_folder=tokenizer_folder,
        generation=generation,
        card="# Card",
    )
    assert (folder / "chat_template.jinja").read_text() == "chat_template.jinja"
    assert not (folder / "unrelated.txt").exists()
    assert (folder / "README.md").read_text() == "# Card"
    theirs = AutoModelForCausalLM.from_pretrained(folder)
    assert theirs.generation_config.temperature == 0.7
    assert (theirs.config.bos_token_id, theirs.config.eos_token_id) == (0, [1, 2])


def test_a_folder_without_a_tokenizer_is_refused(tmp_path):
    with pytest.raises(BessemerError, match=r"has no tokenizer\.json"):
        save(our_model(), tmp_path / "model", tokenizer_folder=tmp_path)


def test_missing_unexpected_and_misshapen_tensors_are_named_together(tmp_path):
    path = save(our_model(), tmp_path) / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.layers.0.self_attn.q_proj.weight"]
    tensors["model.layers.7.mlp.up_proj.weight"] = torch.zeros(3, 2)
    tensors["model.norm.weight"] = torch.zeros(5)
    save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(BessemerError) as raised:
        load_model(tmp_path)
    for part in (
        "model.layers.0.self_attn.q_proj.weight: missing",
        "model.layers.7.mlp.up_proj.weight: unexpected (in model.safetensors, shape [3, 2])",
        "model.norm.weight: shape [5], expected [64] (in model.safetensors)",
    ):
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", "{", "not valid JSON"),
        ("config.json", "[]", "does not hold a JSON object"),
        ("model.safetensors", None, "has neither model.safetensors nor"),
        ("model.safetensors", "cut short", "not a whole safetensors file"),
    ],
)
def test_a_damaged_folder_says_what_is_wrong(name, content, message, tmp_path):
    path = save(our_model(), tmp_path) / name
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    with pytest.raises(BessemerError, match=message):
        load_model(tmp_path)


def test_an_index_that_names_absent_shards_is_refused(tmp_path):
    save(our_model(), tmp_path)
    (tmp_path / "model.safetensors").unlink()
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00002.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BessemerError, match=r"not there: model-00001-of-00002\.safetensors"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({"weight_map": {"model.norm.weight": "../model.safetensors"}}, "outside its folder"),
        ({"weight_map": ["model.norm.weight"]}, "has no weight_map"),
        ({}, "has no weight_map"),
    ],
)
def test_a_hostile_index_is_refused(index, message, tmp_path):
    folder = save(our_model(), tmp_path / "model")
    (folder / "model.safetensors").rename(tmp_path / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(BessemerError, match=message):
        load_model(folder)


def test_writing_to_the_named_tensors_writes_to_the_model():
    model = our_model()
    huggingface_tensors(model)["model.layers.1.self_attn.k_proj.weight"].zero_()
    q_width, kv_width = 64, 32
    assert torch.count_nonzero(model.blocks[1].qkv[q_width : q_width + kv_width]) == 0
    assert torch.count_nonzero(model.blocks[1].qkv[:q_width]) > 0
