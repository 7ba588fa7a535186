"""A byte-level BPE tokenizer: training, loading, saving, and exact encoding of any text or bytes.

The merges are learnt and applied by the `tokenizers` library; the folder written opens in
`transformers.AutoTokenizer`. Text never turns into a special token, whatever it contains: special
ids come only from the renderer in `chat.py` and from `end_of_text_id`.
"""

import json
import shutil
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from bessemer.errors import BessemerError
from bessemer.tokenization.template import CHAT_TEMPLATE

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""Of a folder; the first must be there."""
END_OF_TEXT = "<|endoftext|>"
"""Ends a document in pretraining."""
START_OF_TURN = "<|im_start|>"
END_OF_TURN = "<|im_end|>"
"""Ends a turn of a conversation; the model's end-of-sequence token."""
PADDING = "<|pad|>"
"""A token of its own: padding with the end token teaches a model never to stop."""
SPECIAL_TOKENS = (END_OF_TEXT, START_OF_TURN, END_OF_TURN, PADDING)
"""Those of a tokenizer that is learnt here."""
_NEEDED = (END_OF_TEXT, START_OF_TURN, END_OF_TURN)
"""Those that another project's tokenizer must have."""

# Words with one leading space or sign, single digits (so that numbers have one spelling), runs of
# signs, line ends apart from what follows them. The last point lets a turn's header end in "\n"
# and stay a token sequence of its own, whatever the turn's text begins with.
SPLIT_PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


class Tokenizer:
    """Encodes text to ids and back; `decode_bytes(encode_bytes(b)) == b` for any bytes."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        """`backend` must be byte-level and know the special tokens of ChatML; raises BessemerError.

        Without a token for padding, the end of text stands in: what is padded is told from positions, never
        from the id.
        """
        missing = [token for token in _NEEDED if backend.token_to_id(token) is None]
        if missing:
            raise BessemerError(f"tokenizer.json lacks the special tokens {', '.join(missing)}")
        alphabet = byte_alphabet()
        self._missing = frozenset(byte for byte in range(256) if backend.token_to_id(alphabet[byte]) is None)
        """Bytes without a token: some vocabularies leave out those that their corpus never held."""
        if not self._missing.isdisjoint(b"\t\n" + bytes(range(32, 127))):
            raise BessemerError(
                f"tokenizer.json is not byte-level: it lacks tokens for {len(self._missing)} of the 256 "
                "bytes, so some texts could not be encoded; take a byte-level tokenizer"
            )
        backend.encode_special_tokens = True  # text that spells "<|im_end|>" stays text
        self._backend = backend
        self.end_of_text_id = self._id_of(END_OF_TEXT)
        self.start_of_turn_id = self._id_of(START_OF_TURN)
        self.end_of_turn_id = self._id_of(END_OF_TURN)
        self._padding = PADDING if backend.token_to_id(PADDING) is not None else END_OF_TEXT
        self.padding_id = self._id_of(self._padding)

    @property
    def vocab_size(self) -> int:
        return self._backend.get_vocab_size(with_added_tokens=True)

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; no special tokens are added or recognised.

        Raises BessemerError where the vocabulary of another project has no token for a byte of it.
        """
        self._check_bytes(text)
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """`encode` of many texts on every core."""
        for text in texts:
            self._check_bytes(text)
        return [e.ids for e in self._backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_bytes(self, data: bytes) -> list[int]:
        """Ids of any bytes: valid UTF-8 as text, every other byte as its own token."""
        ids: list[int] = []
        while data:
            try:
                return ids + self.encode(data.decode("utf-8"))
            except UnicodeDecodeError as error:
                ids += self.encode(data[: error.start].decode("utf-8"))
                broken = data[error.start : error.end]
                if not self._missing.isdisjoint(broken):
                    raise self._missing_byte(broken) from None
                ids += [self._byte_ids[byte] for byte in broken]
                data = data[error.end :]
        return ids

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The exact bytes of a token sequence; special tokens give their names."""
        return b"".join(self._token_bytes[id] for id in ids)

    def decode(self, ids: Iterable[int], *, skip_special: bool = True) -> str:
        """Text of a token sequence; bytes that are not UTF-8 become U+FFFD."""
        if skip_special:
            ids = [id for id in ids if id not in self._special_ids]
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def save(self, folder: Path) -> None:
        """Write tokenizer.json and tokenizer_config.json (with the chat template)."""
        folder.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(folder / "tokenizer.json"))
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": END_OF_TURN,
            "pad_token": self._padding,
            "additional_special_tokens": [END_OF_TEXT, START_OF_TURN],
            "chat_template": CHAT_TEMPLATE,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 10**9,
        }
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")

    @cached_property
    def _token_bytes(self) -> list[bytes]:
        byte_of = {character: byte for byte, character in enumerate(byte_alphabet())}
        added = self._backend.get_added_tokens_decoder()
        table = [b""] * self.vocab_size
        for token, id in self._backend.get_vocab(with_added_tokens=True).items():
            table[id] = token.encode() if id in added else bytes(byte_of[c] for c in token)
        return table

    @cached_property
    def _special_ids(self) -> set[int]:
        added = self._backend.get_added_tokens_decoder()
        return {id for id, token in added.items() if token.special}

    @cached_property
    def _byte_ids(self) -> list[int]:
        alphabet = enumerate(byte_alphabet())
        return [-1 if byte in self._missing else self._id_of(character) for byte, character in alphabet]

    def _check_bytes(self, text: str) -> None:
        """The library would leave such bytes out without a word."""
        if self._missing and not text.isascii():
            content = text.encode("utf-8")
            if not self._missing.isdisjoint(content):
                raise self._missing_byte(content)

    def _missing_byte(self, content: bytes) -> BessemerError:
        byte = next(byte for byte in content if byte in self._missing)
        excerpt = content[max(0, content.index(byte) - 20) :][:40].decode("utf-8", "replace")
        return BessemerError(
            f"the tokenizer's vocabulary has no token for the byte 0x{byte:02x} in {excerpt!r}: leave the "
            "character out, or train a tokenizer that holds every byte"
        )

    def _id_of(self, token: str) -> int:
        """Id of a token that the constructor has found to be there."""
        id = self._backend.token_to_id(token)
        assert id is not None
        return id


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte in a byte-level vocabulary.

    The mapping of GPT-2: printable Latin-1 bytes stand for themselves, the others are moved to
    U+0100 and up in order (Radford et al. 2019, section 2.2; `bytes_to_unicode` of their release).
    """
    own = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)}
    moved = iter(range(256, 512))
    return [chr(byte) if byte in own else chr(next(moved)) for byte in range(256)]


def train_bpe(texts: Iterator[str], vocab_size: int) -> Tokenizer:
    """Learn `vocab_size` tokens (256 bytes, the special tokens and merges) from texts.

    Raises BessemerError when vocab_size leaves no room for the bytes and special tokens.
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise BessemerError(f"vocab_size {vocab_size} is too small; use at least {smallest}")
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=byte_alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend)


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy a tokenizer's files. Raises BessemerError when `source` has none."""
    if not (source / TOKENIZER_FILES[0]).is_file():
        raise BessemerError(f"{source} has no {TOKENIZER_FILES[0]}: give the folder of a trained tokenizer")
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def load_tokenizer(folder: Path) -> Tokenizer:
    """Read `tokenizer.json` from a folder. Raises BessemerError when it is missing or unreadable."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BessemerError(f"{path} is missing: {folder} holds no tokenizer")
    try:
        return Tokenizer(tokenizers.Tokenizer.from_file(str(path)))
    except BessemerError:
        raise
    except Exception as error:  # the library raises bare Exception for malformed JSON
        raise BessemerError(f"{path} cannot be read as a tokenizer: {error}") from error
