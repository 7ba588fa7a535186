import json

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import models
from transformers import AutoTokenizer

from bessemer.errors import BessemerError
from bessemer.tokenization.tokenizer import (
    END_OF_TEXT,
    END_OF_TURN,
    PADDING,
    SPECIAL_TOKENS,
    START_OF_TURN,
    byte_alphabet,
    load_tokenizer,
    train_bpe,
)

UNUSUAL = "\u2028<|im_end|>\x00\x1f \u00a0\u3000e\u0301\U0001f469\u200d\U0001f680 Ⅷ²٣\r\n\n \t"


@pytest.fixture(scope="module")
def saved(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer.save(folder)
    return folder


@given(st.binary(max_size=60))
@example(bytes(range(256)))
@example("é".encode()[:1] + "日本".encode()[:5])
@example(b"\xed\xa0\x80\xff\xc0\x80")
def test_any_bytes_come_back_exactly(tokenizer, data):
    assert tokenizer.decode_bytes(tokenizer.encode_bytes(data)) == data


@given(st.text(max_size=60))
@example(UNUSUAL)
@example("".join(SPECIAL_TOKENS))
def test_any_text_comes_back_exactly(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.encode_bytes(text.encode()) == ids


@given(st.text(max_size=20), st.sampled_from(SPECIAL_TOKENS), st.text(max_size=20))
def test_text_that_spells_a_special_token_never_becomes_one(tokenizer, before, special, after):
    special_ids = {
        tokenizer.end_of_text_id,
        tokenizer.start_of_turn_id,
        tokenizer.end_of_turn_id,
        tokenizer.padding_id,
    }
    text = before + special + after
    assert special_ids.isdisjoint(tokenizer.encode(text))
    assert special_ids.isdisjoint(tokenizer.encode_batch([text])[0])
    assert special_ids.isdisjoint(tokenizer.encode_bytes(text.encode()))


@given(st.lists(st.text(max_size=30), max_size=5))
def test_a_batch_encodes_as_its_texts_do_one_by_one(tokenizer, texts):
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


@given(st.text(max_size=60))
def test_the_saved_folder_gives_the_same_ids(tokenizer, saved, text):
    assert load_tokenizer(saved).encode(text) == tokenizer.encode(text)


def test_transformers_reads_the_folder_with_the_same_ids_and_tokens(tokenizer, saved):
    theirs = AutoTokenizer.from_pretrained(saved)
    for text in (
        "Return the gcd of 12 and 18.",
        "naïve\n\n  café\t\u2028 x",
        "",
        " 日本語 🚀",
        "a  ,b!?\r\n",
    ):
        ids = theirs(text, add_special_tokens=False)["input_ids"]
        assert ids == tokenizer.encode(text)
        assert theirs.decode(ids) == text
    assert (theirs.eos_token, theirs.eos_token_id) == (END_OF_TURN, tokenizer.end_of_turn_id)
    assert (theirs.pad_token, theirs.pad_token_id) == (PADDING, tokenizer.padding_id)
    assert len(theirs) == tokenizer.vocab_size


def test_the_special_tokens_are_four_different_ids(tokenizer):
    ids = {
        tokenizer.end_of_text_id,
        tokenizer.start_of_turn_id,
        tokenizer.end_of_turn_id,
        tokenizer.padding_id,
    }
    assert len(ids) == 4
    assert tokenizer.decode(sorted(ids)) == ""
    assert tokenizer.decode([tokenizer.end_of_turn_id], skip_special=False) == END_OF_TURN


def test_the_byte_alphabet_is_the_published_one(tokenizer):
    alphabet = byte_alphabet()
    assert len(set(alphabet)) == 256
    assert (alphabet[0], alphabet[ord(" ")], alphabet[ord("\n")], alphabet[0xAD]) == ("Ā", "Ġ", "Ċ", "Ń")
    assert sorted(alphabet) == sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())


def test_numbers_are_always_single_digits(tokenizer):
    assert len(tokenizer.encode("1234567")) == 7


def test_learning_twice_gives_the_same_bytes(tmp_path):
    texts = [f"word{i % 7} and word{i % 5}s, {i} times." for i in range(200)]
    for name in ("one", "two"):
        train_bpe(iter(texts), 320).save(tmp_path / name)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_the_smallest_vocabulary_holds_bytes_and_special_tokens_alone(tokenizer):
    smallest = train_bpe(iter(["some text"]), 260)
    assert smallest.vocab_size == 260
    assert smallest.decode_bytes(smallest.encode_bytes(b"any \xff bytes")) == b"any \xff bytes"


def test_a_vocabulary_without_room_for_the_bytes_is_refused():
    with pytest.raises(BessemerError, match="vocab_size 259 is too small; use at least 260"):
        train_bpe(iter(["text"]), 259)


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(BessemerError, match=r"tokenizer\.json is missing"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": {"type": "none"}}', b"\xff\x00"])
def test_a_damaged_tokenizer_is_named(tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(BessemerError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_without_the_special_tokens_is_refused(tmp_path):
    tokenizers.Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BessemerError, match=r"lacks the special tokens <\|endoftext\|>"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_cannot_hold_every_byte_is_refused(tmp_path):
    backend = tokenizers.Tokenizer(models.BPE())
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.add_tokens(["a", "b"])
    backend.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BessemerError, match="not byte-level: it lacks tokens for 254 of the 256 bytes"):
        load_tokenizer(tmp_path)


def test_the_config_written_names_the_end_of_turn_as_end_of_sequence(saved):
    config = json.loads((saved / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["eos_token"] == END_OF_TURN != config["pad_token"]


def test_a_chat_tokenizer_of_others_needs_no_padding_token(tmp_path):
    backend = tokenizers.Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(byte_alphabet())}, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens([END_OF_TEXT, START_OF_TURN, END_OF_TURN, "<repo name>"])
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.padding_id == tokenizer.end_of_text_id
    ids = [*tokenizer.encode("né"), 259, tokenizer.end_of_turn_id]
    assert tokenizer.decode(ids) == "né"
    assert tokenizer.decode_bytes(ids) == "né<repo name><|im_end|>".encode()
    tokenizer.save(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again").pad_token == END_OF_TEXT


def test_a_byte_without_a_token_is_named_where_a_text_needs_it(tmp_path):
    vocab = {
        c: i for i, c in enumerate(c for byte, c in enumerate(byte_alphabet()) if byte not in (0xF1, 0xFF))
    }
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("plain é 🙂")) == "plain é 🙂"
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch([text])):
        with pytest.raises(BessemerError, match=r"no token for the byte 0xf1 in 'rare: "):
            encode("rare: \U00040000")
    with pytest.raises(BessemerError, match="no token for the byte 0xff"):
        tokenizer.encode_bytes(b"a\xffb")
