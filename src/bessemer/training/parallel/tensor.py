"""Tensor and sequence parallelism: every matrix is divided over the processes of a group, and so are the
tokens between matrices (Shoeybi et al. 2019, Megatron-LM; Korthikanti et al. 2022, section 4.2.2).

A layer's tokens are gathered before the matrices that read the residual stream, and its results summed and
divided again after those that write to it: two all-gathers and two reduce-scatters forward and as many
backward. Embedding and head are divided by vocabulary, and logits are never gathered to compute a loss.

All processes of the group are given the same batch and compute the same loss, which counts once. What is not
divided (norms, routers, some biases) sees a part of the tokens or heads on each process: its gradients are
parts of a sum, which `sum_undivided_gradients` takes.

Shapes as in `bessemer.model.division`; W vocabulary rows held here, R processes, C tokens of a chunk.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from bessemer.errors import BessemerError
from bessemer.model.block import Block
from bessemer.model.config import ModelConfig
from bessemer.model.gpt2 import Gpt2Block
from bessemer.model.layers import linear
from bessemer.model.mixture import Mixture
from bessemer.model.transformer import Transformer
from bessemer.training.parallel.collectives import (
    all_gather,
    gather,
    reduce_scatter,
    sum_gradients,
    sum_of_one_loss,
    total,
)
from bessemer.training.parallel.layout import ParallelConfig, check_shape
from bessemer.training.parallel.parts import is_tensor_divided, keep_parts, share, tensor_part


def divide_tensors(model: nn.Module, config: ModelConfig, group: ProcessGroup) -> None:
    """Keep this process's part of every matrix of a whole model, the same on all, and nothing else of it.

    Before anything else holds on to the parameters, such as an optimizer or FSDP. `model` is a Transformer or
    what holds some of its modules. Raises BessemerError when heads, vocabulary or widths are too few.
    """
    size, place = group.size(), group.rank()
    _check(config, size)
    division = TensorDivision(group, config.vocab_size)
    for module in model.modules():
        if isinstance(module, (Transformer, Block, Gpt2Block, Mixture)):
            module.division = division
        keep_parts(module, lambda name, shape: tensor_part(name, shape, config, size, place))


@torch.no_grad()
def sum_undivided_gradients(model: nn.Module, group: ProcessGroup) -> None:
    """Sum the gradients of the parameters that every process holds whole, in one all-reduce.

    Once a step, after the backward pass of the last micro-batch and before gradient norms are taken.
    """
    parameters = [p for name, p in model.named_parameters() if not is_tensor_divided(name)]
    sum_gradients(parameters, group)


def _check(config: ModelConfig, size: int) -> None:
    mixture = config.mixture
    num_heads, num_kv_heads = config.num_attention_heads, config.num_key_value_heads
    check_shape(ParallelConfig(tensor=size), num_heads, num_kv_heads, config.num_hidden_layers, 0)
    widths = {"vocab_size": config.vocab_size, "intermediate_size": config.intermediate_size}
    if mixture is not None:
        widths["mixture.expert_size"] = mixture.expert_size
        widths |= {"mixture.shared_size": mixture.shared_size} if mixture.shared_size else {}
    short = [f"{name} {width}" for name, width in widths.items() if width < size]
    if short:
        raise BessemerError(
            f"parallel.tensor {size} leaves some processes nothing of {' and '.join(short)}: at most "
            f"{min(widths.values())} fit"
        )


class TensorDivision:
    """See `bessemer.model.division.Division`."""

    def __init__(self, group: ProcessGroup, vocab_size: int) -> None:
        self.group, self.size, self.place = group, group.size(), group.rank()
        self.vocab_size = vocab_size

    def own(self, x_BT: Tensor) -> Tensor:
        self._check_tokens(x_BT.shape[1])
        return x_BT.tensor_split(self.size, dim=1)[self.place]

    def gather(self, x_TD: Tensor) -> Tensor:
        return all_gather(x_TD, -2, self.group)

    def reduce(self, x_TD: Tensor) -> Tensor:
        return reduce_scatter(x_TD, -2, self.group)

    def read(self, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        return linear(self.gather(x_TI), weight_OI, bias_O)

    def write(self, x_TI: Tensor, weight_OI: Tensor, bias_O: Tensor | None) -> Tensor:
        out_TO = self.reduce(linear(x_TI, weight_OI))
        return out_TO if bias_O is None else out_TO + bias_O.to(out_TO.dtype)

    def embed(self, token_ids_BT: Tensor, weight_VD: Tensor, dtype: torch.dtype) -> Tensor:
        self._check_tokens(token_ids_BT.shape[1])
        local_BT, is_here_BT = self._here(token_ids_BT)
        x_BTD = F.embedding(local_BT, weight_VD).to(dtype)
        return self.reduce(x_BTD.masked_fill(~is_here_BT.unsqueeze(-1), 0.0))

    def log_probabilities(
        self, hidden_SD: Tensor, weight_VD: Tensor, targets_S: Tensor
    ) -> tuple[Tensor, Tensor]:
        if targets_S.numel() and not 0 <= int(targets_S.min()) <= int(targets_S.max()) < self.vocab_size:
            raise IndexError(f"a target is outside the vocabulary of {self.vocab_size}")
        return _LogProbabilities.apply(hidden_SD, weight_VD, *self._here(targets_S), self.group)  # type: ignore[no-any-return]

    def head_rows(self, weight_VD: Tensor) -> int:
        return -(-self.vocab_size // self.size)

    @torch.no_grad()
    def logits(self, hidden: Tensor, weight_VD: Tensor) -> Tensor:
        """Without gradients: every process would bring the same, and they would count several times."""
        logits = linear(hidden, weight_VD).float()
        # Collectives take equal pieces: the smaller ones have a column more.
        padded = F.pad(logits, (0, self.head_rows(weight_VD) - logits.shape[-1]))
        pieces = gather(padded, padded.dim() - 1, self.group).unflatten(-1, (self.size, -1)).unbind(-2)
        counts = [stop - start for start, stop in (self._vocabulary(place) for place in range(self.size))]
        return torch.cat([piece[..., :count] for piece, count in zip(pieces, counts, strict=True)], dim=-1)

    def total(self, x: Tensor) -> Tensor:
        return sum_of_one_loss(x, self.group)

    def _vocabulary(self, place: int) -> tuple[int, int]:
        return share(self.vocab_size, self.size, place)

    def _here(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Each id's row in the part held here (0 where it is elsewhere), and whether it is here."""
        start, stop = self._vocabulary(self.place)
        is_here = (ids >= start) & (ids < stop)
        return torch.where(is_here, ids - start, 0), is_here

    def _check_tokens(self, num_tokens: int) -> None:
        if num_tokens % self.size:
            raise BessemerError(
                f"rows of {num_tokens} tokens do not divide over {self.size} tensor-parallel processes: "
                f"choose a sequence_length that is a multiple of {self.size}"
            )


class WholeRowsDivision(TensorDivision):
    """For generation, where a row's one new token cannot be divided: every process has all tokens between
    matrices, too (Shoeybi et al. 2019, section 3). Without gradients."""

    def own(self, x_BT: Tensor) -> Tensor:
        return x_BT

    def gather(self, x_TD: Tensor) -> Tensor:
        return x_TD

    def reduce(self, x_TD: Tensor) -> Tensor:
        return total(x_TD, self.group)

    def _check_tokens(self, num_tokens: int) -> None:
        """Any number will do."""


@contextmanager
def with_whole_rows(model: nn.Module) -> Iterator[None]:
    """Within it, a model that is divided by tensors takes rows of any length, without gradients."""
    divided: list[Any] = [
        module for module in model.modules() if isinstance(getattr(module, "division", None), TensorDivision)
    ]
    before = [module.division for module in divided]
    for module, division in zip(divided, before, strict=True):
        module.division = WholeRowsDivision(division.group, division.vocab_size)
    try:
        yield
    finally:
        for module, division in zip(divided, before, strict=True):
            module.division = division


class _LogProbabilities(torch.autograd.Function):
    """Each process makes the logits of its part of the vocabulary; their logarithm of the sum of exponentials
    and the target's logit, where it is here, are all that is exchanged: one all-gather of two numbers a
    token. The gradient by the hidden states is a part of a sum over processes."""

    @staticmethod
    def forward(ctx, hidden_SD, weight_WD, rows_S, is_here_S, group):  # type: ignore[override]
        cast_WD = weight_WD.to(hidden_SD.dtype)
        logits_SW = F.linear(hidden_SD, cast_WD).float()
        at_target_S = logits_SW.gather(1, rows_S.unsqueeze(1)).squeeze(1).masked_fill(~is_here_S, 0.0)
        parts_R2S = gather(torch.stack((logits_SW.logsumexp(1), at_target_S)).unsqueeze(0), 0, group)
        log_total_S = parts_R2S[:, 0].logsumexp(0)
        if any(ctx.needs_input_grad):
            d_logits_SW = logits_SW.sub_(log_total_S.unsqueeze(1)).exp_()
            d_logits_SW.scatter_add_(1, rows_S.unsqueeze(1), -is_here_S.float().unsqueeze(1))
            d_logits_SW = d_logits_SW.to(hidden_SD.dtype)
            ctx.save_for_backward(hidden_SD, cast_WD, d_logits_SW, rows_S, is_here_S)
            ctx.weight_dtype = weight_WD.dtype
            ctx.set_materialize_grads(False)  # None says that log Z was not used
        return parts_R2S[:, 1].sum(0) - log_total_S, log_total_S

    @staticmethod
    def backward(ctx, d_out_S, d_log_total_S):  # type: ignore[override]
        hidden_SD, cast_WD, d_logits_SW, rows_S, is_here_S = ctx.saved_tensors
        if d_out_S is None:
            d_out_S = torch.zeros_like(d_log_total_S)
        # Rows are scaled on the narrow side of both products, which is D wide and not W.
        scale_S1 = (-d_out_S if d_log_total_S is None else d_log_total_S - d_out_S).unsqueeze(1)
        d_hidden_SD = d_logits_SW @ cast_WD * scale_S1
        d_weight_WD = (d_logits_SW.T @ (hidden_SD * scale_S1).to(hidden_SD.dtype)).to(ctx.weight_dtype)
        if d_log_total_S is not None:
            # log Z's gradient by the logits is softmax: what is saved, and 1 at the target.
            at_target_S1 = d_log_total_S.masked_fill(~is_here_S, 0.0).unsqueeze(1)
            d_hidden_SD = d_hidden_SD + cast_WD.index_select(0, rows_S) * at_target_S1
            d_weight_WD.index_add_(0, rows_S, (hidden_SD * at_target_S1).to(d_weight_WD.dtype))
        return d_hidden_SD.to(hidden_SD.dtype), d_weight_WD, None, None, None
