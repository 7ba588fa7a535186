"""What a model trains on: rows of tokens with targets, and where each document begins.

Shapes: B rows, T tokens. The order of the data is a pure function of (seed, step): there is no
loader state to save, and a resumed run sees exactly what an undisturbed one would.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bessemer.formats.tokens import TokenSplit

IGNORE = -100
"""Target of a position that is not learnt; the value torch's cross-entropy skips."""


@dataclass(frozen=True)
class Batch:
    """One micro-batch. Tokens attend only to earlier tokens of their own document."""

    token_ids_BT: Tensor
    """int64 inputs."""
    targets_BT: Tensor
    """int64: the token that follows each input, or IGNORE."""
    documents_BT: Tensor
    """int32: number of the document that a token belongs to; padding is a document of its own."""
    positions_BT: Tensor
    """int64: position inside the document, from 0."""

    @property
    def num_tokens(self) -> int:
        return self.token_ids_BT.numel()

    def split(self, num_parts: int) -> "list[Batch]":
        """Cut into micro-batches of consecutive rows, as even as can be; none is empty."""
        num_parts = min(num_parts, len(self.token_ids_BT))
        fields = (self.token_ids_BT, self.targets_BT, self.documents_BT, self.positions_BT)
        return [Batch(*part) for part in zip(*(f.tensor_split(num_parts) for f in fields), strict=True)]

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        return Batch(
            *(
                t.to(device)
                for t in (self.token_ids_BT, self.targets_BT, self.documents_BT, self.positions_BT)
            )
        )


def rng(*key: int) -> np.random.Generator:
    """A generator that depends on nothing but the key."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


class DocumentRows:
    """Cuts a shuffled stream of documents into rows of equal length, epoch after epoch.

    Every epoch is a fresh permutation of the documents, laid end to end; row r of the endless
    stream covers tokens [r·T, (r+1)·T], so no token is lost and none is padded.
    """

    def __init__(self, split: TokenSplit, sequence_length: int, seed: int) -> None:
        """`sequence_length` is T, in tokens. Raises ValueError on an empty split."""
        if split.num_tokens == 0:
            raise ValueError("cannot train on an empty token split")
        self._split = split
        self._length = sequence_length
        self._seed = seed
        self._epochs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}

    def batch(self, step: int, num_rows: int) -> Batch:
        """The rows of one step, B = num_rows, where every step takes as many."""
        return stack_rows([self.row(step * num_rows + row) for row in range(num_rows)])

    def row(self, number: int) -> "Row":
        """One row of the endless stream."""
        return row_of_pieces([tokens for _, tokens in self._pieces(number)])

    def documents(self, number: int) -> list[str]:
        """Ids of the documents in a row."""
        return [self._split.document_ids[document] for document, _ in self._pieces(number)]

    def _pieces(self, number: int) -> list[tuple[int, NDArray[np.int64]]]:
        """(document, tokens) of a row and the one token after it."""
        start, stop = number * self._length, (number + 1) * self._length + 1
        pieces = []
        position = start
        while position < stop:
            epoch, offset = divmod(position, self._split.num_tokens)
            order, ends = self._epoch(epoch)
            place = int(np.searchsorted(ends, offset, side="right"))
            document = int(order[place])
            inside = offset - (int(ends[place]) - int(self._split.lengths[document]))
            tokens = self._split.document(document)[inside : inside + stop - position]
            pieces.append((document, np.asarray(tokens, dtype=np.int64)))
            position += len(tokens)
        return pieces

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Document order of an epoch, and where each document ends in it, in tokens."""
        if epoch not in self._epochs:
            order = rng(self._seed, epoch).permutation(len(self._split.lengths))
            self._epochs = {
                **{kept: value for kept, value in self._epochs.items() if kept >= epoch - 1},
                epoch: (order, np.cumsum(self._split.lengths[order])),
            }
        return self._epochs[epoch]


@dataclass(frozen=True)
class Row:
    """One row before batching: int64 arrays of equal length."""

    token_ids: NDArray[np.int64]
    targets: NDArray[np.int64]
    documents: NDArray[np.int64]
    positions: NDArray[np.int64]


def row_of_pieces(pieces: Sequence[NDArray[np.int64]]) -> Row:
    """A row of T inputs from consecutive pieces of documents holding T + 1 tokens.

    The last token of a piece does not predict the first of the next: its target is IGNORE, since
    the two documents only happen to be neighbours.
    """
    tokens = np.concatenate(pieces)
    lengths = np.array([len(piece) for piece in pieces])
    documents = np.repeat(np.arange(len(pieces)), lengths)
    starts = np.cumsum(lengths) - lengths
    positions = np.arange(len(tokens)) - np.repeat(starts, lengths)
    targets = np.where(documents[1:] == documents[:-1], tokens[1:], IGNORE)
    return Row(tokens[:-1], targets, documents[:-1], positions[:-1])


def row_of_conversations(
    conversations: Sequence[tuple[Sequence[int], Sequence[bool]]], sequence_length: int, padding_id: int
) -> Row:
    """A row that holds whole (token ids, loss mask) conversations, each a document, padded to T.

    Target of a position is the next token where the mask is true for that next token.
    """
    token_ids = np.full(sequence_length, padding_id, dtype=np.int64)
    targets = np.full(sequence_length, IGNORE, dtype=np.int64)
    documents = np.full(sequence_length, len(conversations), dtype=np.int64)
    positions = np.zeros(sequence_length, dtype=np.int64)
    start = 0
    for number, (ids, mask) in enumerate(conversations):
        stop = start + len(ids)
        token_ids[start:stop] = ids
        documents[start:stop] = number
        positions[start:stop] = np.arange(len(ids))
        targets[start : stop - 1] = np.where(mask[1:], ids[1:], IGNORE)
        start = stop
    positions[start:] = np.arange(sequence_length - start)
    return Row(token_ids, targets, documents, positions)


def stack_rows(rows: Sequence[Row]) -> Batch:
    """Rows of equal length as one batch."""
    return Batch(
        token_ids_BT=torch.from_numpy(np.stack([row.token_ids for row in rows])),
        targets_BT=torch.from_numpy(np.stack([row.targets for row in rows])),
        documents_BT=torch.from_numpy(np.stack([row.documents for row in rows]).astype(np.int32)),
        positions_BT=torch.from_numpy(np.stack([row.positions for row in rows])),
    )
