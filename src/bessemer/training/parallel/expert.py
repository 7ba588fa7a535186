"""Expert parallelism: the experts of each layer are divided over processes that see different tokens.

Tokens travel to their experts and back in two all-to-alls (Lepikhin et al. 2020, GShard), after one in which
processes tell each other how many will come. None is dropped: an expert takes as many as it is sent, and it
may be none (Gale et al. 2022, MegaBlocks). The gradients of an expert's matrices are those of the tokens of
all processes of its group.

Shapes: S tokens sorted by expert, M tokens that came, D hidden, X experts, R processes, L = X / R experts
held here, F width of an expert.
"""

import torch
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh

from bessemer.errors import BessemerError
from bessemer.model.mixture import Mixture, grouped_swiglu
from bessemer.training.parallel.collectives import all_to_all, exchange, sum_gradients
from bessemer.training.parallel.layout import Layout
from bessemer.training.parallel.parts import expert_part, is_expert_divided, keep_parts


def expert_mesh(layout: Layout) -> DeviceMesh:
    """The processes of a layout with dimensions `expert_copy`, along which the same experts are held, and
    `expert`, along which they are divided; beside `pipeline` and `tensor`. To be called by every process.

    Gradients of experts are to be summed over `expert_copy` (`sum_expert_gradients`), all others over data,
    shard and context.
    """
    size = layout.config.expert
    ranks = layout.mesh.mesh.movedim(-1, 1).flatten(2).unflatten(2, (-1, size))
    names = ("pipeline", "tensor", "expert_copy", "expert")
    options = layout.group_options
    overrides = None if options is None else ((None, options),) * len(names)
    return DeviceMesh(layout.mesh.device_type, ranks, mesh_dim_names=names, backend_override=overrides)


def divide_experts(model: nn.Module, group: ProcessGroup) -> None:
    """Keep this process's experts of a whole model, the same on all, and send tokens to the others.

    Before anything else holds on to the parameters. Raises BessemerError when the experts do not divide.
    """
    size, place = group.size(), group.rank()
    dispatch = Dispatch(group)
    for module in model.modules():
        if not isinstance(module, Mixture):
            continue
        if module.mixture.num_experts % size:
            raise BessemerError(
                f"{module.mixture.num_experts} experts do not divide over {size} expert-parallel processes: "
                "choose a parallel.expert that divides them"
            )
        module.apply_experts = dispatch
        keep_parts(module, lambda name, shape: expert_part(f"mixture.{name}", shape, size, place))


def divided_parameters(model: nn.Module) -> list[nn.Parameter]:
    """The matrices of the experts held here. What sums gradients over all processes that see tokens, such as
    DDP and FSDP, is to leave them out: other processes hold other experts there."""
    return [parameter for name, parameter in model.named_parameters() if is_expert_divided(name)]


@torch.no_grad()
def sum_expert_gradients(model: nn.Module, copies: ProcessGroup) -> None:
    """Sum the gradients of experts over the processes that hold the same ones, in one all-reduce.

    Once a step, after the backward pass of the last micro-batch and before gradient norms are taken.
    """
    sum_gradients(divided_parameters(model), copies)


class Dispatch:
    """`bessemer.model.mixture.ApplyExperts` over the processes of a group."""

    def __init__(self, group: ProcessGroup) -> None:
        self.group = group

    def __call__(self, x_SD: Tensor, sizes_X: Tensor, gate_up_LFD: Tensor, down_LDF: Tensor) -> Tensor:
        """SwiGLU expert(token) for consecutive groups of `sizes_X` tokens, [S, D]."""
        sizes_RL = sizes_X.view(self.group.size(), -1)
        coming_RL = exchange(sizes_RL, self.group)
        sent, received = sizes_RL.sum(1).tolist(), coming_RL.sum(1).tolist()
        x_MD = all_to_all(x_SD, self.group, received, sent)
        # Tokens come sorted by process and then by expert; the products want them by expert alone.
        order_M = _experts_of(coming_RL).argsort(stable=True)
        out_MD = grouped_swiglu(x_MD.index_select(0, order_M), coming_RL.sum(0), gate_up_LFD, down_LDF)
        back_MD = out_MD.index_select(0, order_M.argsort())
        return all_to_all(back_MD, self.group, sent, received)


def _experts_of(sizes_RL: Tensor) -> Tensor:
    """[M]: the expert of each token that came."""
    num_processes, num_experts = sizes_RL.shape
    experts_RL = torch.arange(num_experts, device=sizes_RL.device).expand(num_processes, -1)
    return experts_RL.flatten().repeat_interleave(sizes_RL.flatten())
