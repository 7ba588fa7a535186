"""Best-fit packing of documents into rows: whole documents where they fit, little padding, nothing lost.

Cutting documents wherever a row ends teaches a model to go on from contexts that it cannot see; packing
whole ones does better at the same cost (Ding et al. 2024, "Fewer Truncations Improve Language Modeling",
arXiv:2404.10830). A document is counted in pairs (token, next token), so its last token is a target only.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bessemer.errors import BessemerError
from bessemer.formats.tokens import TokenSplit
from bessemer.training.batches import IGNORE, Row, rng
from bessemer.training.packing import pack

_WINDOW_PIECES = 8192
"""Pieces packed together: enough that the best fit is nearly perfect, and packing stays linear in time."""
_MOST_ROOM = 0.01
"""A row with more room than this share is laid out anew, with documents cut at its ends."""
_PACKING, _ORDER = 2, 3
"""Keep the generators of packing and of the order of rows apart."""


@dataclass(frozen=True)
class _Piece:
    """A run of pairs of one document."""

    document: int
    start: int
    length: int


class PackedDocuments:
    """Rows of packed documents, epoch after epoch; a pure function of (seed, row number).

    The documents of a row do not see each other, so who lies beside whom does not matter: rows are packed
    once, and every epoch takes them in another order.
    """

    def __init__(self, split: TokenSplit, sequence_length: int, seed: int, padding_id: int) -> None:
        """`sequence_length` is T, in tokens. Raises BessemerError on a split without a pair of tokens."""
        self._split, self._length, self._seed, self._padding_id = split, sequence_length, seed, padding_id
        self._rows, self.num_cut = _packed_rows(split.lengths, sequence_length, seed)
        if not self._rows:
            raise BessemerError("cannot train on an empty token split: no document has two tokens")
        self._orders: dict[int, NDArray[np.int64]] = {}

    @property
    def rows_per_epoch(self) -> int:
        return len(self._rows)

    @property
    def padding_share(self) -> float:
        """Share of all places that hold no pair."""
        num_pairs = sum(piece.length for row in self._rows for piece in row)
        return 1 - num_pairs / (len(self._rows) * self._length)

    def row(self, number: int) -> Row:
        """One row of the endless sequence."""
        token_ids = np.full(self._length, self._padding_id, dtype=np.int64)
        targets = np.full(self._length, IGNORE, dtype=np.int64)
        pieces = self._pieces(number)
        documents = np.full(self._length, len(pieces), dtype=np.int64)
        positions = np.zeros(self._length, dtype=np.int64)
        at = 0
        for place, piece in enumerate(pieces):
            tokens = self._split.document(piece.document)[piece.start : piece.start + piece.length + 1]
            inside = slice(at, at + piece.length)
            token_ids[inside], targets[inside] = tokens[:-1], tokens[1:]
            documents[inside], positions[inside] = place, np.arange(piece.length)
            at += piece.length
        positions[at:] = np.arange(self._length - at)
        return Row(token_ids, targets, documents, positions)

    def documents(self, number: int) -> list[str]:
        """Ids of the documents in a row."""
        return [self._split.document_ids[piece.document] for piece in self._pieces(number)]

    def _pieces(self, number: int) -> list[_Piece]:
        epoch, place = divmod(number, len(self._rows))
        if epoch not in self._orders:
            order = rng(self._seed, _ORDER, epoch + 1).permutation(len(self._rows))
            self._orders = {kept: o for kept, o in self._orders.items() if kept == epoch - 1} | {epoch: order}
        return self._rows[self._orders[epoch][place]]


def _packed_rows(lengths: NDArray[np.int64], capacity: int, seed: int) -> tuple[list[list[_Piece]], int]:
    """Rows of pieces, and how many documents were cut to fill up rows.

    A document longer than a row is cut into full rows and a rest; that alone does not count.
    """
    rows: list[list[_Piece]] = []
    rests: list[_Piece] = []
    for document, length in enumerate(lengths.tolist()):
        num_pairs, start = length - 1, 0
        while num_pairs - start >= capacity:
            rows.append([_Piece(document, start, capacity)])
            start += capacity
        if num_pairs > start:
            rests.append(_Piece(document, start, num_pairs - start))
    order = rng(seed, _PACKING).permutation(len(rests))
    loose: list[_Piece] = []
    for at in range(0, len(order), _WINDOW_PIECES):
        window = [rests[place] for place in order[at : at + _WINDOW_PIECES]]
        for items in pack([piece.length for piece in window], capacity):
            row = [window[item] for item in items]
            room = capacity - sum(piece.length for piece in row)
            if room <= _MOST_ROOM * capacity:
                rows.append(row)
            else:
                loose += row
    laid, num_cut = _laid_end_to_end(loose, capacity)
    return rows + laid, num_cut


def _laid_end_to_end(pieces: list[_Piece], capacity: int) -> tuple[list[list[_Piece]], int]:
    """Rows that are full but for the last one, and how many pieces were cut at the end of a row."""
    rows: list[list[_Piece]] = []
    room, num_cut = 0, 0
    for piece in pieces:
        is_cut = False
        while piece.length > 0:
            if room == 0:
                rows.append([])
                room = capacity
            taken = min(room, piece.length)
            is_cut = is_cut or taken < piece.length
            rows[-1].append(_Piece(piece.document, piece.start, taken))
            piece = _Piece(piece.document, piece.start + taken, piece.length - taken)
            room -= taken
        num_cut += is_cut
    return rows, num_cut
