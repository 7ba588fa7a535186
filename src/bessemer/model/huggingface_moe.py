"""The keys of a mixture of experts in config.json: Mixtral, Qwen2-MoE, Qwen3-MoE and dots1, which is
Qwen3's attention with DeepSeek-V3's routing."""

from collections.abc import Mapping
from typing import Any

from bessemer.model.config import MixtureConfig

_MISSING = "is missing: take the folder's original config.json"


def mixture_from_huggingface(
    values: Mapping[str, Any], kind: str, problems: list[str]
) -> MixtureConfig | None:
    """The mixture of a config.json of `model_type` kind, None for a dense family; appends problems."""
    if kind == "mixtral":
        return _mixtral(values)
    if kind in ("qwen2_moe", "qwen3_moe"):
        return _qwen(values, kind, problems)
    return _dots1(values, problems) if kind == "dots1" else None


def mixture_to_huggingface(mixture: MixtureConfig, kind: str) -> dict[str, Any]:
    """The keys that the class of `model_type` kind reads."""
    values: dict[str, Any] = {
        "num_experts_per_tok": mixture.experts_per_token,
        "output_router_logits": False,
    }
    if kind == "dots1":
        return values | {
            "n_routed_experts": mixture.num_experts,
            "n_shared_experts": mixture.shared_size // mixture.expert_size,
            "moe_intermediate_size": mixture.expert_size,
            "first_k_dense_replace": len(mixture.dense_layers),
            "norm_topk_prob": mixture.normalize_weights,
            "routed_scaling_factor": mixture.weight_scale,
            "n_group": 1,
            "topk_group": 1,
        }
    values["router_aux_loss_coef"] = mixture.balance_loss
    if kind == "mixtral":
        return values | {
            "num_local_experts": mixture.num_experts,
            "intermediate_size": mixture.expert_size,
            "router_jitter_noise": 0.0,
        }
    values |= {
        "num_experts": mixture.num_experts,
        "moe_intermediate_size": mixture.expert_size,
        "norm_topk_prob": mixture.normalize_weights,
        "decoder_sparse_step": 1,
        "mlp_only_layers": list(mixture.dense_layers),
    }
    if kind == "qwen2_moe":
        values["shared_expert_intermediate_size"] = mixture.shared_size
    return values


def _mixtral(values: Mapping[str, Any]) -> MixtureConfig:
    return MixtureConfig(
        num_experts=_num_experts(values, 8),
        experts_per_token=values.get("num_experts_per_tok", 2),
        expert_size=values.get("intermediate_size", 1),
        balance_loss=values.get("router_aux_loss_coef", 0.001),
    )


def _qwen(values: Mapping[str, Any], kind: str, problems: list[str]) -> MixtureConfig:
    is_shared = kind == "qwen2_moe"
    step = values.get("decoder_sparse_step", 1)
    only_dense = values.get("mlp_only_layers") or []
    num_layers = values.get("num_hidden_layers", 0)
    if not isinstance(step, int) or step < 1:
        problems.append(f"decoder_sparse_step is {step!r}: give a whole number above zero")
        step = 1
    return MixtureConfig(
        num_experts=_num_experts(values, 60 if is_shared else 128),
        experts_per_token=values.get("num_experts_per_tok", 4 if is_shared else 8),
        expert_size=values.get("moe_intermediate_size", 1408 if is_shared else 768),
        shared_size=values.get("shared_expert_intermediate_size", 5632) if is_shared else 0,
        normalize_weights=values.get("norm_topk_prob", False),
        dense_layers=tuple(n for n in range(num_layers) if n in only_dense or (n + 1) % step),
        balance_loss=values.get("router_aux_loss_coef", 0.001),
    )


def _dots1(values: Mapping[str, Any], problems: list[str]) -> MixtureConfig | None:
    required = ("n_routed_experts", "n_shared_experts", "num_experts_per_tok")
    absent = [name for name in required if not values.get(name)]
    problems += [f"{name} {_MISSING}" for name in absent]
    if values.get("n_group", 1) not in (None, 1):
        problems.append(f"n_group is {values['n_group']}: experts in groups are not supported, only 1")
    if absent:
        return None
    expert_size = values.get("moe_intermediate_size", 1408)
    return MixtureConfig(
        num_experts=values["n_routed_experts"],
        experts_per_token=values["num_experts_per_tok"],
        expert_size=expert_size,
        shared_size=expert_size * values["n_shared_experts"],
        scores="sigmoid",
        normalize_weights=bool(values.get("norm_topk_prob", False)),
        weight_scale=values.get("routed_scaling_factor", 1.0),
        dense_layers=tuple(range(values.get("first_k_dense_replace") or 0)),
        balance_loss=0.0,
    )


def _num_experts(values: Mapping[str, Any], default: int) -> int:
    """transformers 5 writes either name."""
    return values.get("num_experts") or values.get("num_local_experts") or default
