"""Damage for files: a few edits within one record of a valid sample, drawn by hypothesis."""

from dataclasses import dataclass

from hypothesis import strategies as st

_TELLING = [
    *(b"\0", b"\n", b"\r\n", b"\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"<", b">", b"&", b'"', b"\\", b"{"),
    *(b"[" * 300, b"<a>" * 300, b"9" * 20, b"-1", b"\x1f\x8b", b"PK\x03\x04", b"-->", b"]]>", b"\\ud800"),
    *(b"\xe2\x80", b"%00", b"<!DOCTYPE x [", b"&#0;", b"Content-Length: 99999999999\r\n", b"WARC/1.0\r\n"),
]
"""Pieces that parsers take for something."""


@dataclass(frozen=True)
class Edit:
    """One change at a place within a record."""

    kind: str
    where: float
    """Share of the record that lies before it."""
    size: int
    piece: bytes


EDITS = st.lists(
    st.builds(
        Edit,
        kind=st.sampled_from(["flip", "overwrite", "insert", "delete", "repeat", "zero", "cut"]),
        where=st.floats(0, 1, exclude_max=True),
        size=st.integers(1, 48),
        piece=st.one_of(st.sampled_from(_TELLING), st.binary(min_size=1, max_size=12)),
    ),
    min_size=1,
    max_size=4,
)


@dataclass(frozen=True)
class Sample:
    """A valid file of several records."""

    content: bytes
    spans: tuple[tuple[int, int], ...]
    """Where each record lies; damage goes into one of them."""
    is_by_offset: bool = False
    """Whether the file says where its records are: damage then keeps the length, or all would move."""

    @property
    def whole(self) -> "Sample":
        """The same file as one record: damage goes anywhere."""
        return Sample(self.content, ((0, len(self.content)),))


_KEEPING_LENGTH = {"insert": "overwrite", "delete": "zero", "repeat": "flip", "cut": "zero"}


@dataclass(frozen=True)
class Damaged:
    """A sample with a damaged record."""

    content: bytes
    record: int
    """Number of the damaged record."""
    is_cut: bool
    """Whether the file ends within it."""
    is_gone: bool
    """Whether nothing is left of it: a shorter file, but a sound one."""


def damaged(sample: Sample, number: int, edits: list[Edit]) -> Damaged:
    """The sample with edits in one record, which `number` chooses."""
    record = number % len(sample.spans)
    start, end = sample.spans[record]
    part, is_cut = sample.content[start:end], False
    for edit in edits:
        kind = _KEEPING_LENGTH.get(edit.kind, edit.kind) if sample.is_by_offset else edit.kind
        part, is_cut = _edited(part, kind, edit), is_cut or kind == "cut"
    if sample.is_by_offset:
        part = part[: end - start]
    rest = b"" if is_cut else sample.content[end:]
    is_gone = not part.strip(b"\0\r\n\t ")
    return Damaged(sample.content[:start] + part + rest, record, is_cut, is_gone)


def _edited(part: bytes, kind: str, edit: Edit) -> bytes:
    at = int(edit.where * len(part))
    stop = min(at + edit.size, len(part))
    match kind:
        case "flip":
            return part[:at] + bytes([part[at] ^ (1 << edit.size % 8)]) + part[at + 1 :] if part else part
        case "overwrite":
            return part[:at] + edit.piece + part[at + len(edit.piece) :]
        case "insert":
            return part[:at] + edit.piece + part[at:]
        case "delete":
            return part[:at] + part[stop:]
        case "repeat":
            return part[:stop] + part[at:]
        case "zero":
            return part[:at] + bytes(stop - at) + part[stop:]
        case _:
            return part[:at]
