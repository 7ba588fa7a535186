"""A mixture of experts in place of a feed-forward layer: a router sends each token to a few of them
(Shazeer et al. 2017; Fedus et al. 2021, Switch Transformer; Jiang et al. 2024, Mixtral).

No token is ever dropped: experts take as many as they are sent, in one grouped matrix product.

Shapes: N tokens, D hidden, X experts, K experts per token, S = N K tokens sorted by expert, F width of
an expert.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bessemer.model.config import MixtureConfig
from bessemer.model.division import WHOLE, Division
from bessemer.model.layers import linear, swiglu


@dataclass(frozen=True)
class Routing:
    """What a layer's router decided for the tokens of one forward pass."""

    probabilities_NX: Tensor
    """Differentiable scores of all experts, float32; every row sums to one."""
    weights_NK: Tensor
    """Differentiable weights of the chosen experts' outputs, float32."""
    experts_NK: Tensor
    """Numbers of the chosen experts."""

    @property
    def load_X(self) -> Tensor:
        """How many tokens each expert was sent, float32."""
        num_experts = self.probabilities_NX.shape[1]
        return torch.bincount(self.experts_NK.flatten(), minlength=num_experts).float()


NoteRouting = Callable[[Routing], None]
"""Is told what a layer's router decided. A function and not a list: FSDP copies lists that hold tensors on
their way into a module, and what is appended to the copy is lost."""


class Mixture(nn.Module):
    """The experts of one layer, their router, and the expert that all tokens share, where there is one."""

    selection_bias: Tensor | None
    """[X], with sigmoid scores: added to the scores when experts are chosen, and to nothing else."""

    def __init__(self, hidden: int, mixture: MixtureConfig) -> None:
        super().__init__()
        self.mixture = mixture
        width, num_experts, shared = mixture.expert_size, mixture.num_experts, mixture.shared_size
        is_sigmoid = mixture.scores == "sigmoid"
        self.router = nn.Parameter(torch.empty(num_experts, hidden))
        self.gate_up = nn.Parameter(torch.empty(num_experts, 2 * width, hidden))
        self.down = nn.Parameter(torch.empty(num_experts, hidden, width))
        self.shared_gate_up = nn.Parameter(torch.empty(2 * shared, hidden)) if shared else None
        self.shared_down = nn.Parameter(torch.empty(hidden, shared)) if shared else None
        self.shared_gate = nn.Parameter(torch.empty(1, hidden)) if shared and not is_sigmoid else None
        self.register_buffer("selection_bias", torch.zeros(num_experts) if is_sigmoid else None)
        self.division: Division = WHOLE
        self.apply_experts: ApplyExperts = grouped_swiglu
        self.load_X: Tensor | None = None
        """Tokens sent to each expert in training since the biases were last moved."""

    def forward(self, x_BTD: Tensor, note: NoteRouting | None = None) -> Tensor:
        """x_BTD to x_BTD; `note` is told the routing."""
        x_ND = x_BTD.flatten(0, -2)
        routing = route(x_ND, self.router, self.selection_bias, self.mixture)
        if note is not None:
            note(routing)
        if self.training and torch.is_grad_enabled() and self.selection_bias is not None:
            self.load_X = routing.load_X if self.load_X is None else self.load_X + routing.load_X
        return self.division.reduce(self._outputs(*self._gathered(x_ND, routing))).view_as(x_BTD)

    def _gathered(self, x_ND: Tensor, routing: Routing) -> tuple[Tensor, Routing]:
        """The tokens of every process that divides the experts' matrices, and the experts they go to."""
        gather = self.division.gather
        weights_NK, experts_NK = gather(routing.weights_NK), gather(routing.experts_NK)
        return gather(x_ND), replace(routing, weights_NK=weights_NK, experts_NK=experts_NK)

    def _outputs(self, x_ND: Tensor, routing: Routing) -> Tensor:
        out_ND = expert_outputs(x_ND, routing, self.gate_up, self.down, self.apply_experts)
        if self.shared_gate_up is not None and self.shared_down is not None:
            shared_ND = linear(swiglu(linear(x_ND, self.shared_gate_up)), self.shared_down)
            if self.shared_gate is not None:
                shared_ND = shared_ND * linear(x_ND, self.shared_gate).sigmoid()
            out_ND = out_ND + shared_ND
        return out_ND


def route(x_ND: Tensor, router_XD: Tensor, bias_X: Tensor | None, mixture: MixtureConfig) -> Routing:
    """Choose the experts of each token; computed in float32, since rounding would change choices."""
    logits_NX = F.linear(x_ND.float(), router_XD.float())
    if mixture.scores == "softmax":
        scores_NX = choice_NX = probabilities_NX = logits_NX.softmax(-1)
    else:
        scores_NX = logits_NX.sigmoid()
        probabilities_NX = scores_NX / scores_NX.sum(-1, keepdim=True)
        choice_NX = scores_NX if bias_X is None else scores_NX + bias_X
    experts_NK = choice_NX.detach().topk(mixture.experts_per_token, dim=-1).indices
    weights_NK = scores_NX.gather(1, experts_NK)
    if mixture.normalize_weights:
        weights_NK = weights_NK / weights_NK.sum(-1, keepdim=True)
    return Routing(probabilities_NX, weights_NK * mixture.weight_scale, experts_NK)


def grouped_swiglu(x_SD: Tensor, sizes_X: Tensor, gate_up_XFD: Tensor, down_XDF: Tensor) -> Tensor:
    """SwiGLU expert(token) for consecutive groups of `sizes_X` tokens, [S, D]."""
    return grouped_linear(swiglu(grouped_linear(x_SD, gate_up_XFD, sizes_X)), down_XDF, sizes_X)


ApplyExperts = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""`grouped_swiglu`, or what has its arguments and result where experts are spread over processes; then
`sizes_X` are those of all experts, and the matrices those of the experts held here."""


def expert_outputs(
    x_ND: Tensor,
    routing: Routing,
    gate_up_XFD: Tensor,
    down_XDF: Tensor,
    apply_experts: ApplyExperts = grouped_swiglu,
) -> Tensor:
    """Sum over a token's experts of weight * SwiGLU expert(token), [N, D].

    Tokens are sorted by expert, so that each expert's are consecutive, and put back in their order: the
    sum is over a token's experts in the order of their choice, the same for any batch.
    """
    num_tokens, per_token = routing.experts_NK.shape
    order_S = routing.experts_NK.flatten().argsort(stable=True)
    num_experts = routing.probabilities_NX.shape[1]
    sizes_X = torch.bincount(routing.experts_NK.flatten(), minlength=num_experts)
    x_SD = x_ND.index_select(0, order_S // per_token)
    out_SD = apply_experts(x_SD, sizes_X, gate_up_XFD, down_XDF)
    place_S = torch.empty_like(order_S)
    place_S[order_S] = torch.arange(len(order_S), device=order_S.device)
    out_NKD = out_SD.index_select(0, place_S).view(num_tokens, per_token, -1)
    return (out_NKD * routing.weights_NK.unsqueeze(-1).to(x_ND.dtype)).sum(1)


def grouped_linear(x_SI: Tensor, weight_XOI: Tensor, sizes_X: Tensor) -> Tensor:
    """x weight[x]^T for consecutive groups of `sizes_X` rows, [S, O], in x's dtype.

    One grouped product where torch has a kernel for the shape (rows of whole 16 bytes), else one
    product an expert.
    """
    weight_XOI = weight_XOI.to(x_SI.dtype)
    is_aligned = all(size * x_SI.element_size() % 16 == 0 for size in weight_XOI.shape[1:])
    if is_aligned and len(x_SI) and x_SI.dtype in (torch.bfloat16, torch.float32):
        return F.grouped_mm(x_SI, weight_XOI.mT, offs=sizes_X.cumsum(0).int())
    return linear_by_expert(x_SI, weight_XOI, sizes_X)


def linear_by_expert(x_SI: Tensor, weight_XOI: Tensor, sizes_X: Tensor) -> Tensor:
    """Same contract as `grouped_linear`, one expert after the other: the reference."""
    pieces = x_SI.split(sizes_X.tolist())
    return torch.cat([F.linear(piece, weight) for piece, weight in zip(pieces, weight_XOI, strict=True)])


Total = Callable[[Tensor], Tensor]
"""Sums a statistic over all processes that see other tokens."""


def own_total(x: Tensor) -> Tensor:
    """This process sees all tokens."""
    return x


@dataclass(frozen=True)
class Usage:
    """How the experts of L layers were used by the tokens of one forward pass, of all processes."""

    load_LX: Tensor
    """Tokens that each expert was sent, float32."""
    probability_LX: Tensor
    """Mean probability of each expert over the tokens; differentiable."""

    def balance_loss(self) -> Tensor:
        """X * sum of (share of tokens sent to an expert) * (its mean probability), the mean over layers
        (Fedus et al. 2021, equations 4 to 6). 1 where all experts are used alike, X where one is used alone.

        The shares are those of the tokens at hand: with several micro-batches, each is to be balanced.
        """
        share_LX = self.load_LX / self.load_LX.sum(1, keepdim=True)
        return (share_LX * self.probability_LX).sum(1).mul(share_LX.shape[1]).mean()

    def imbalance(self) -> float:
        """The busiest expert's load over the mean load, the mean over layers; 1 is balanced."""
        return float((self.load_LX.amax(1) / self.load_LX.mean(1)).mean())


def usage(routings: Sequence[Routing], total: Total = own_total) -> Usage:
    """How the experts of each layer were used; `total` is called once, for all layers."""
    load_LX = torch.stack([routing.load_X for routing in routings])
    probability_LX = torch.stack([routing.probabilities_NX.sum(0) for routing in routings])
    num_tokens_1 = load_LX.new_tensor([len(routings[0].experts_NK)])
    sums = total(torch.cat((load_LX.flatten(), probability_LX.flatten(), num_tokens_1)))
    load_LX, probability_LX = sums[:-1].view(2, *load_LX.shape)
    return Usage(load_LX.detach(), probability_LX / sums[-1].detach())


@torch.no_grad()
def balance_experts(model: nn.Module, total: Total = own_total) -> None:
    """Move the selection biases of every mixture with sigmoid scores: up by `balance_rate` for experts
    that were sent less than the mean since the last call, down for those that were sent more (Wang et
    al. 2024, "Auxiliary-Loss-Free Load Balancing", algorithm 1). To be called after each update.

    `total` sums the loads of all layers, in one call, over the processes that see other tokens."""
    mixtures = [
        module
        for module in model.modules()
        if isinstance(module, Mixture) and module.selection_bias is not None and module.load_X is not None
    ]
    if not mixtures:
        return
    load_LX = total(torch.stack([mixture.load_X for mixture in mixtures if mixture.load_X is not None]))
    for mixture, load_X in zip(mixtures, load_LX, strict=True):
        assert mixture.selection_bias is not None
        direction_X = (load_X.mean() - load_X).sign()
        mixture.selection_bias.add_(direction_X, alpha=mixture.mixture.balance_rate)
        mixture.load_X = None


def forget_loads(model: nn.Module) -> None:
    """Leave out the tokens counted since the last call of `balance_experts`: their update is not taken."""
    for module in model.modules():
        if isinstance(module, Mixture):
            module.load_X = None
