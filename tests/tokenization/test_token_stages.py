import json
import random

import numpy as np
import pytest

from bessemer.errors import BessemerError
from bessemer.formats.tokens import read_split
from bessemer.tokenization.stage import TokenizerConfig, train_tokenizer
from bessemer.tokenization.tokenizer import load_tokenizer
from bessemer.tokenization.tokens_stage import TokensConfig, encode_tokens, is_validation
from stage_helpers import artifact, contents, kill_at_operation, killed, said, stage_context, write_documents

CONFIG = TokensConfig(validation_share=0.25)
CORPUS = [(f"document-{i}", f"Document {i} says: naïve text, {'again ' * (i % 5)}\n") for i in range(60)]
SHARDS = [CORPUS[:25], CORPUS[25:26], CORPUS[26:]]


@pytest.fixture(scope="module")
def inputs(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    tokenizer.save(folder / "tokenizer")
    return write_documents(folder / "documents", SHARDS), artifact(folder / "tokenizer", "tokenizer")


def encode(inputs, work, config=CONFIG):
    context = stage_context(work, *inputs)
    return context, encode_tokens(config, context)


def test_every_document_is_in_one_split_whole_and_ended(tokenizer, inputs, tmp_path):
    context, metrics = encode(inputs, tmp_path)
    texts = dict(CORPUS)
    seen = []
    for name in ("train", "validation"):
        split = read_split(context.output, name)
        for number, id in enumerate(split.document_ids):
            ids = split.document(number).tolist()
            assert ids.pop() == tokenizer.end_of_text_id
            assert tokenizer.decode(ids) == texts[id]
            assert split.num_bytes[number] == len(texts[id].encode())
            assert is_validation(id, 0.25) == (name == "validation")
            seen.append(id)
        assert metrics[f"{name}_tokens"] == split.num_tokens
        assert metrics[f"{name}_documents"] == len(split.lengths)
    assert sorted(seen) == sorted(texts)


def test_the_header_says_how_to_read_the_shards(tokenizer, inputs, tmp_path):
    context, metrics = encode(inputs, tmp_path)
    header = json.loads((context.output / "tokens.json").read_text())
    assert header == {
        "dtype": "<u2",
        "vocab_size": tokenizer.vocab_size,
        "tokenizer_digest": "digest of tokenizer",
        "tokens": {"train": metrics["train_tokens"], "validation": metrics["validation_tokens"]},
    }
    shards = sorted(context.output.glob("train-*.bin"))
    assert len(shards) == len(SHARDS)
    assert sum(len(np.memmap(p, header["dtype"], "r")) for p in shards) == metrics["train_tokens"]


def test_the_split_of_a_document_depends_on_its_id_alone(tokenizer, inputs, tmp_path):
    first, _ = encode(inputs, tmp_path / "first")
    shuffled = random.Random(0).sample(CORPUS, len(CORPUS))
    reordered = write_documents(tmp_path / "documents", [shuffled[:7], shuffled[7:50]])
    second, _ = encode((reordered, inputs[1]), tmp_path / "second")
    was_held_out = set(read_split(first.output, "validation").document_ids)
    still_there = {id for id, _ in shuffled[:50]}
    assert set(read_split(second.output, "validation").document_ids) == was_held_out & still_there


def test_a_larger_share_only_adds_held_out_documents():
    ids = [f"id {i}" for i in range(4000)]
    smaller, larger = ({id for id in ids if is_validation(id, share)} for share in (0.02, 0.2))
    assert smaller < larger
    assert len(smaller) / 4000 == pytest.approx(0.02, abs=0.01)
    assert len(larger) / 4000 == pytest.approx(0.2, abs=0.03)


def test_a_stage_killed_at_any_file_operation_continues_to_the_same_bytes(inputs, tmp_path):
    undisturbed, metrics = encode(inputs, tmp_path / "undisturbed")
    num_killed = 0
    for operation in range(1, 200, 3):
        work = tmp_path / f"killed-{operation}"

        def run(work=work, operation=operation):
            context = stage_context(work, *inputs)
            kill_at_operation(work, operation)
            encode_tokens(CONFIG, context)

        if not killed(run):
            break
        num_killed += 1
        resumed, again = encode(inputs, work)
        assert again == metrics
        assert contents(resumed.output) == contents(undisturbed.output), f"killed at operation {operation}"
    assert num_killed > 8


def test_a_finished_shard_is_not_encoded_again(inputs, tmp_path):
    context, _ = encode(inputs, tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in context.output.glob("*.bin")}
    encode(inputs, tmp_path)
    assert {path.name: path.stat().st_mtime_ns for path in context.output.glob("*.bin")} == before


def test_an_empty_validation_split_is_an_error_with_its_mend(inputs, tmp_path):
    with pytest.raises(
        BessemerError, match=r"no document fell into validation out of 60: .*validation_share"
    ):
        encode(inputs, tmp_path, TokensConfig(validation_share=1e-9))


def test_the_tokenizer_stage_learns_saves_and_measures(tmp_path):
    documents = write_documents(tmp_path / "documents", SHARDS)
    context = stage_context(tmp_path / "work", documents)
    metrics = train_tokenizer(TokenizerConfig(vocab_size=280), context)
    tokenizer = load_tokenizer(context.output)
    num_bytes = sum(len(text.encode()) for _, text in CORPUS)
    num_tokens = sum(len(tokenizer.encode(text)) for _, text in CORPUS)
    assert metrics["vocab_size"] == tokenizer.vocab_size == 280
    assert metrics["bytes_per_token"] == pytest.approx(num_bytes / num_tokens)
    assert metrics["documents"] == 60
    assert "280 tokens learnt from 60 documents" in said(context)


def test_a_bounded_sample_learns_from_the_first_documents_only(tmp_path):
    documents = write_documents(tmp_path / "documents", SHARDS)
    context = stage_context(tmp_path / "work", documents)
    metrics = train_tokenizer(TokenizerConfig(vocab_size=270, sample_bytes=100), context)
    first = [len(text.encode()) for _, text in CORPUS]
    assert metrics["sample_bytes"] - first[metrics["documents"] - 1] < 100 <= metrics["sample_bytes"]


def test_a_tokenizer_cannot_be_learnt_from_nothing(tmp_path):
    documents = write_documents(tmp_path / "documents", [[]])
    with pytest.raises(BessemerError, match="holds no documents"):
        train_tokenizer(TokenizerConfig(vocab_size=300), stage_context(tmp_path / "work", documents))
