"""Our reading of fastText's models and our predictions, beside fastText's own; and files that are refused."""

import platform
import random
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fasttext
import numpy as np
import pytest
from fasttext_files import WORDS, SmallModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bessemer.curate.fasttext_model import (
    FastTextModel,
    ModelFileError,
    huffman_tree,
    parse_model,
    read_model,
)
from bessemer.curate.kernels.fasttext import predict
from bessemer.curate.language import language_model, model_path
from bessemer.curate.texts import pack

IS_SAME_TO_THE_BIT = platform.machine() in ("x86_64", "AMD64")
"""Elsewhere fastText's compiler may fuse products and sums."""
SCRIPTS = (
    (0x41, 0x5A), (0x61, 0x7A), (0xC0, 0x17F), (0x370, 0x3FF), (0x400, 0x4FF), (0x531, 0x587), (0x5D0, 0x5EA),
    (0x620, 0x6D3), (0x904, 0x94D), (0x985, 0x9CD), (0xB85, 0xBCD), (0xE01, 0xE4E), (0x1000, 0x103F),
    (0x10D0, 0x10FA), (0x1200, 0x135A), (0x1780, 0x17D3), (0x3041, 0x30FF), (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3), (0x1F300, 0x1F64F), (0x20000, 0x2A6DF),
)  # fmt: skip
SPECIAL = (
    "</s>",
    "__label__en",
    "__label__xx",
    "__label__",
    "__label__a",
    "<",
    ">",
    "\x00",
    "\t",
    "\x0b",
    " ",
)
SMALL = {
    "pruned": SmallModel(),
    "of short and of long n-grams": SmallModel(minn=1, maxn=6, seed=1),
    "without a least n-gram": SmallModel(minn=0, maxn=3, seed=2),
    "without n-grams of characters": SmallModel(minn=0, maxn=0, seed=3),
    "with n-grams of words": SmallModel(word_ngrams=3, seed=4),
    "with n-grams of words alone": SmallModel(maxn=0, word_ngrams=2, num_pruned=None, part_dim=0, seed=5),
    "pruned of all n-grams": SmallModel(num_pruned=0, word_ngrams=2, part_dim=3, bucket=300, seed=6),
    "not pruned": SmallModel(num_pruned=None, seed=7),
    "not quantized": SmallModel(num_pruned=None, part_dim=0, dim=16, seed=8),
    "quantized without scales": SmallModel(has_scales=False, seed=9),
    "with a quantized output": SmallModel(output_part_dim=2, dim=7, part_dim=2, seed=10),
    "with many labels": SmallModel(num_labels=60, dim=32, part_dim=2, seed=11),
    "with one label": SmallModel(num_labels=1, seed=12),
    "of the first format": SmallModel(version=11, seed=13),
}


def ours(model: FastTextModel, texts: Iterable[str]) -> list[tuple[str, float]]:
    labels, probabilities = predict(*pack(list(texts)), model.classifier)
    return [
        (model.labels[label], score)
        for label, score in zip(labels.tolist(), probabilities.tolist(), strict=True)
    ]


def theirs(model: Any, texts: Iterable[str]) -> list[tuple[str, float]]:
    found = (model.predict(text, k=1) for text in texts)
    return [(label.removeprefix("__label__"), score) for (label,), (score,) in found]


def assert_same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    if IS_SAME_TO_THE_BIT:
        assert found == expected
    else:
        assert [label for label, _ in found] == [label for label, _ in expected]
        np.testing.assert_allclose([score for _, score in found], [score for _, score in expected], rtol=1e-4)


def random_texts(count: int) -> list[str]:
    """Words in one script or in several, up to a thousand characters of them, known and special words among
    them."""
    chance = random.Random(0)
    texts = []
    for _ in range(count):
        scripts = chance.sample(SCRIPTS, chance.choice((1, 1, 2, 5)))
        words = []
        for _ in range(chance.choice((0, 1, 2, 20, 150))):
            first, last = chance.choice(scripts)
            word = "".join(chr(chance.randint(first, last)) for _ in range(chance.randint(1, 9)))
            words.append(chance.choice((word, word, word, chance.choice(WORDS[1:]))))
        if chance.random() < 0.2:
            words.insert(chance.randint(0, len(words)), chance.choice(SPECIAL))
        texts.append(chance.choice((" ", "  ", "\t", "\x00")).join(words))
    return texts


TEXTS = random_texts(400)


@pytest.fixture(scope="module")
def identifier() -> Any:
    return fasttext.load_model(str(model_path()))


@pytest.fixture(scope="module", params=SMALL.values(), ids=list(SMALL))
def small(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[FastTextModel, Any]:
    path = tmp_path_factory.mktemp("model") / "small.ftz"
    path.write_bytes(request.param.content())
    return read_model(path), fasttext.load_model(str(path))


def test_languages_and_scores_are_fasttexts_own_in_every_script(identifier: Any):
    found = ours(language_model(), TEXTS)
    assert_same(found, theirs(identifier, TEXTS))
    assert len({label for label, _ in found}) > 30


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.text() | st.sampled_from((*SPECIAL, "the", "de")))
        .map(" ".join)
        .map(lambda text: text.replace("\n", " ")),
        min_size=1,
    )
)
def test_any_texts_are_labelled_as_fasttext_labels_them(identifier: Any, texts: list[str]):
    assert_same(ours(language_model(), texts), theirs(identifier, texts))


def test_models_of_every_kind_are_read_and_followed_as_by_fasttext(small: tuple[FastTextModel, Any]):
    model, peer = small
    assert_same(ours(model, TEXTS), theirs(peer, TEXTS))


def test_a_text_goes_to_its_first_newline():
    model = language_model()
    (first,) = ours(model, ["Das Haus am Fluss"])
    assert ours(model, ["Das Haus am Fluss\nThe house by the river", "Das Haus am Fluss\n"]) == [first, first]


def test_a_prediction_does_not_depend_on_the_batch():
    model = language_model()
    assert ours(model, TEXTS) == [guess for text in TEXTS for guess in ours(model, [text])]
    assert ours(model, []) == []


def test_the_tree_joins_the_rarest_nodes():
    assert huffman_tree([8, 4, 2, 1]).tolist() == [[-1, -1]] * 4 + [[3, 2], [4, 1], [5, 0]]
    assert huffman_tree([1]).tolist() == [[-1, -1]]


# Files that are refused.

CONTENT = SmallModel(num_labels=3, bucket=50, num_pruned=20, output_part_dim=2).content()
_SETTINGS, _DICTIONARY = 8, 8 + 56
_ENTRIES = _DICTIONARY + 28
_FIRST_COUNT = _ENTRIES + len("</s>") + 1
_NGRAMS = _ENTRIES + sum(len(word.encode()) + 10 for word in WORDS) + 3 * (len("__label__a") + 10)
_INPUT = _NGRAMS + 20 * 8


def with_number(offset: int, number: float, kind: str = "i") -> bytes:
    changed = bytearray(CONTENT)
    struct.pack_into(f"<{kind}", changed, offset, number)
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"its head should take 8 bytes, but 0 are left"),
        (b"RIFF" + CONTENT[4:], "it does not begin as models of fastText do"),
        (with_number(4, 13), "its format has version 13"),
        (with_number(_SETTINGS, 0), "its dim is 0"),
        (with_number(_SETTINGS, 7), r"its input matrix is 30 x 6 with 60 codes, not so many x 7"),
        (with_number(_SETTINGS + 20, -1), "its word_ngrams is -1"),
        (with_number(_SETTINGS + 24, 3), "its loss is number 3"),
        (with_number(_SETTINGS + 28, 1), "it is no classifier"),
        (with_number(_SETTINGS + 32, 0), "its bucket 0"),
        (with_number(_SETTINGS + 32, 10), "hashes of its pruned n-grams are not from 0 to 10"),
        (with_number(_SETTINGS + 40, 1 << 30), "its maxn is 1073741824"),
        (with_number(_DICTIONARY, 14), "10 words and 3 labels, and 14 of both"),
        (with_number(_DICTIONARY + 20, 1 << 40, "q"), "its pruned n-grams should take"),
        (with_number(_DICTIONARY + 20, -1, "q"), "flag is "),
        (with_number(_FIRST_COUNT + 8, 1, "b"), "words and labels of its dictionary are mixed up"),
        (CONTENT.replace(b"</s>\0", b"<\0s>\0", 1), "dictionary"),
        (CONTENT.replace(b"</s>\0", b"<-s>\0", 1), "none for the end of the line"),
        (CONTENT.replace(b"__label__b\0", b"__label__a\0"), "an entry twice"),
        (CONTENT.replace(b"__label__b\0", b"__label__\xff\0"), "a label of its dictionary is not UTF-8"),
        (with_number(_NGRAMS - 9, -5, "q"), "the counts of its labels"),
        (with_number(_NGRAMS, 50), "hashes of its pruned n-grams are not from 0 to 50"),
        (with_number(_NGRAMS + 4, 20), "its input matrix has 30 rows, but its words and n-grams need 31"),
        (with_number(_NGRAMS + 4, -1), "its input matrix"),
        (with_number(_NGRAMS + 4, 2**31 - 1), "need 2,147,483,658"),
        (with_number(_INPUT, 2, "B"), "input matrix's flag is 2"),
        (with_number(_INPUT + 2, 1 << 40, "q"), "its input matrix is 1099511627776 x 6"),
        (with_number(_INPUT + 18, 59), "with 59 codes"),
        (with_number(_INPUT + 22 + 60 + 4, 3), "quantizer has"),
        (with_number(_INPUT + 22 + 60 + 12, 4), "quantizer has"),
        (with_number(_INPUT + 22 + 60 + 16, float("nan"), "f"), "not finite"),
        (CONTENT[:-1], r"centroids should take 1,024 bytes, but 1,023 are left"),
        (CONTENT + b"\0", "it should end here, but 1 bytes are left"),
        (SmallModel(part_dim=0).content(), "pruned but its input matrix is not quantized"),
    ],
)
def test_damaged_files_are_refused_with_what_is_wrong(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "damaged.ftz"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=rf"damaged\.ftz: .*{message}.*fetch it anew"):
        read_model(path)


def test_every_truncated_file_is_refused(tmp_path: Path):
    path = tmp_path / "short.ftz"
    for length in {*range(0, len(CONTENT), 97), *range(_INPUT + 40)}:
        path.write_bytes(CONTENT[:length])
        with pytest.raises(ModelFileError):
            read_model(path)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ModelFileError, match=r"none\.ftz: cannot be read \(No such file"):
        read_model(tmp_path / "none.ftz")


@given(st.lists(st.tuples(st.integers(0, _INPUT + 90), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_file_is_refused_or_gives_labels(damages: list[tuple[int, int]]):
    content = bytearray(CONTENT)
    for offset, byte in damages:
        content[offset] = byte
    try:
        model = parse_model(bytes(content), "damaged.ftz")
    except ModelFileError:
        return
    assert all(label in model.labels for label, _ in ours(model, TEXTS[:20]))
