"""Context parallelism: the tokens of each row are divided over the processes of a group.

Everything but attention works on one token at a time. Attention exchanges in one of two ways: `gather`
collects the keys and values of the whole row for the queries held here (as Llama 3 was trained, Dubey et al.
2024, section 3.3.2); `ulysses` trades tokens for heads, so that each process attends over whole rows with
some of the heads (Jacobs et al. 2023, DeepSpeed-Ulysses). The first takes any number of heads. Of a row a
process receives 2 S K E numbers in the first and 2 S (H + K) E / R in the second (each times (R - 1) / R), so
that the second exchanges less where R > H / K + 1.

Under a causal mask later tokens cost more, so a process has a piece near the start of the row and the piece
as far from its end (ibid., Llama 3). Targets are made before rows are divided: a token's next may be held
elsewhere.

Each process has the loss of its own tokens; losses and gradients of all are to be summed.

Shapes as in `bessemer.model.attention`; T tokens held here, S = R T tokens of a row, R processes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from bessemer.errors import BessemerError
from bessemer.model import rows
from bessemer.model.attention import AttentionMask, attend, document_mask, part_mask
from bessemer.model.block import Block
from bessemer.model.config import ModelConfig
from bessemer.model.gpt2 import Gpt2Block
from bessemer.model.transformer import Transformer
from bessemer.objectives.language_modeling import IGNORE
from bessemer.training.batches import Batch
from bessemer.training.parallel.collectives import all_gather, all_to_all, gather, sum_of_own_losses
from bessemer.training.parallel.layout import ContextKind


def divide_rows(
    model: nn.Module, config: ModelConfig, group: ProcessGroup, kind: ContextKind = "gather", tensor: int = 1
) -> None:
    """Let the model work on a part of each row's tokens, as `part_of_rows` gives it.

    `tensor` is how many processes share the heads already. Raises BessemerError when `ulysses` has too few.
    """
    kv_heads = config.num_key_value_heads // tensor
    if kind == "ulysses" and kv_heads % group.size():
        raise BessemerError(
            f"context parallelism with ulysses divides heads, but {group.size()} processes do not divide the "
            f"{kv_heads} key/value heads that each has: use gather, or a context of "
            f"{', '.join(str(n) for n in range(1, kv_heads + 1) if kv_heads % n == 0)}"
        )
    parts = {"gather": GatheredRows, "ulysses": TradedRows}[kind](group)
    for module in model.modules():
        if isinstance(module, (Transformer, Block, Gpt2Block)):
            module.rows = parts


@contextmanager
def with_rows_undivided(model: nn.Module) -> Iterator[None]:
    """Within it, every process works on whole rows, all on the same ones."""
    divided: list[Any] = [
        module for module in model.modules() if isinstance(getattr(module, "rows", None), _PartsOfRows)
    ]
    before = [module.rows for module in divided]
    for module in divided:
        module.rows = rows.WHOLE_ROWS
    try:
        yield
    finally:
        for module, parts in zip(divided, before, strict=True):
            module.rows = parts


def part_of_rows(batch: Batch, size: int, place: int) -> Batch:
    """The tokens of each row that the process at `place` of `size` works on.

    Raises BessemerError when the rows do not divide.
    """
    num_tokens = batch.token_ids_BT.shape[1]
    if num_tokens % size:
        raise BessemerError(
            f"rows of {num_tokens} tokens do not divide over {size} context-parallel processes: choose a "
            f"sequence_length that is a multiple of {size}"
        )
    places_T = row_places(num_tokens, size)[place].to(batch.token_ids_BT.device)
    fields = (batch.token_ids_BT, batch.targets_BT, batch.documents_BT, batch.positions_BT)
    return Batch(*(field.index_select(1, places_T) for field in fields))


def padded_rows(batch: Batch, multiple: int) -> Batch:
    """The rows with so many tokens more, at their ends and without targets, that their number is a
    multiple."""
    missing = -batch.token_ids_BT.shape[1] % multiple
    if not missing:
        return batch
    # Of the document that is last, so that its tokens stay together.
    last_B1 = batch.documents_BT[:, -1:]
    return Batch(
        F.pad(batch.token_ids_BT, (0, missing)),
        F.pad(batch.targets_BT, (0, missing), value=IGNORE),
        torch.cat((batch.documents_BT, last_B1.expand(-1, missing)), dim=1),
        F.pad(batch.positions_BT, (0, missing)),
    )


def row_places(num_tokens: int, size: int) -> Tensor:
    """int64 [R, T]: the places in a row of S tokens that each process holds, rising.

    2 R pieces; a process has one from the first half, counted from the start, and one from the second,
    counted from the end.
    """
    early = num_tokens // size // 2
    late = num_tokens // size - early
    first_RT = torch.arange(size * early).view(size, early)
    last_RT = torch.arange(size * early, num_tokens).view(size, late).flip(0)
    return torch.cat((first_RT, last_RT), dim=1)


class _PartsOfRows:
    """What both ways have in common; see `bessemer.model.rows.Rows`."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group

    def shift(self, values_BT: Tensor, distance: int, fill: int) -> Tensor:
        moved_BS = rows.shift(self._whole(values_BT), distance, fill)
        return moved_BS.index_select(1, self._places(values_BT)[self.group.rank()])

    def total(self, x: Tensor) -> Tensor:
        return sum_of_own_losses(x, self.group)

    def _whole(self, values_BT: Tensor) -> Tensor:
        """Whole rows of what has no gradient."""
        return gather(values_BT, 1, self.group).index_select(1, self._order(values_BT))

    def _whole_documents(self, documents_BT: Tensor | None) -> Tensor:
        if documents_BT is None:
            raise ValueError("parts of rows need the documents and positions of their tokens")
        return self._whole(documents_BT)

    def _places(self, x_BT: Tensor) -> Tensor:
        """[R, T]"""
        size = self.group.size()
        return row_places(x_BT.shape[1] * size, size).to(x_BT.device)

    def _order(self, x_BT: Tensor) -> Tensor:
        """Puts the joined pieces of all processes in the order of the row."""
        return self._places(x_BT).flatten().argsort()


class GatheredRows(_PartsOfRows):
    """Keys and values of whole rows for the queries held here."""

    def mask(self, token_ids_BT: Tensor, documents_BT: Tensor | None, window: int | None) -> AttentionMask:
        places_T = self._places(token_ids_BT)[self.group.rank()]
        return part_mask(self._whole_documents(documents_BT), places_T, window)

    def attend(self, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, mask: AttentionMask) -> Tensor:
        pieces_2BSKE = all_gather(torch.stack((k_BTKE, v_BTKE)), 2, self.group)
        k_BSKE, v_BSKE = pieces_2BSKE.index_select(2, self._order(q_BTHE)).unbind()
        return attend(q_BTHE, k_BSKE, v_BSKE, mask)


class TradedRows(_PartsOfRows):
    """Whole rows with a share of the heads."""

    def mask(self, token_ids_BT: Tensor, documents_BT: Tensor | None, window: int | None) -> AttentionMask:
        return document_mask(self._whole_documents(documents_BT), window)

    def attend(self, q_BTHE: Tensor, k_BTKE: Tensor, v_BTKE: Tensor, mask: AttentionMask) -> Tensor:
        size, order_S = self.group.size(), self._order(q_BTHE)
        heads_RBTNE = torch.cat([_by_process(x, size) for x in (q_BTHE, k_BTKE, v_BTKE)], dim=3)
        pieces_RBTNE = all_to_all(heads_RBTNE, self.group)
        heads_BSNE = pieces_RBTNE.movedim(0, 1).flatten(1, 2).index_select(1, order_S)
        counts = [x.shape[2] // size for x in (q_BTHE, k_BTKE, v_BTKE)]
        q_BSNE, k_BSNE, v_BSNE = heads_BSNE.split(counts, dim=2)
        o_BSNE = attend(q_BSNE, k_BSNE, v_BSNE, mask)
        back_RBTNE = o_BSNE.index_select(1, order_S.argsort()).unflatten(1, (size, -1)).movedim(1, 0)
        return all_to_all(back_RBTNE, self.group).movedim(0, 2).flatten(2, 3)


def _by_process(x_BTHE: Tensor, size: int) -> Tensor:
    """The heads for each process, [R, B, T, N, E]."""
    return x_BTHE.unflatten(2, (size, -1)).movedim(2, 0)
