"""A model's parameters under the names that its family has in Hugging Face folders.

All are views into the model's own (fused) parameters: writing to a view writes to the model.
"""

from torch import Tensor

from bessemer.model.block import Block
from bessemer.model.families import model_type
from bessemer.model.gpt2 import Gpt2Block
from bessemer.model.mixture import Mixture
from bessemer.model.transformer import Transformer


def huggingface_tensors(model: Transformer) -> dict[str, Tensor]:
    """Every parameter that a folder holds, by name. A tied head is not listed, nor are blocks that only
    training uses."""
    if model.config.family == "gpt2":
        return _gpt2_tensors(model)
    kind = model_type(model.config)
    views: dict[str, Tensor] = {"model.embed_tokens.weight": model.embedding.detach()}
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Block)
        for name, view in _block_tensors(block, kind).items():
            views[f"model.layers.{layer}.{name}"] = view.detach()
    views["model.norm.weight"] = model.final_norm.detach()
    if model.head is not None:
        views["lm_head.weight"] = model.head.detach()
    return views


def parameter_of_tensors(model: Transformer) -> dict[str, str]:
    """The name of the parameter, or buffer, that each of `huggingface_tensors` is a view of; also of a model
    on the meta device, where all memory has the address 0."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    names = {tensor.untyped_storage()._cdata: name for name, tensor in tensors.items()}
    return {key: names[view.untyped_storage()._cdata] for key, view in huggingface_tensors(model).items()}


def _block_tensors(block: Block, kind: str) -> dict[str, Tensor]:
    config = block.config
    q_width = config.num_attention_heads * config.head_dim
    kv_width = config.num_key_value_heads * config.head_dim
    q, k, v = block.qkv.split((q_width, kv_width, kv_width))
    tensors = {
        "input_layernorm.weight": block.attention_norm,
        "self_attn.q_proj.weight": q,
        "self_attn.k_proj.weight": k,
        "self_attn.v_proj.weight": v,
        "self_attn.o_proj.weight": block.attention_out,
        "post_attention_layernorm.weight": block.feed_forward_norm,
    }
    if block.qkv_bias is not None:
        biases = block.qkv_bias.split((q_width, kv_width, kv_width))
        tensors |= {f"self_attn.{name}_proj.bias": bias for name, bias in zip("qkv", biases, strict=True)}
    if block.attention_out_bias is not None:
        tensors["self_attn.o_proj.bias"] = block.attention_out_bias
    if block.q_norm is not None and block.k_norm is not None:
        tensors |= {"self_attn.q_norm.weight": block.q_norm, "self_attn.k_norm.weight": block.k_norm}
    if block.mixture is not None:
        return tensors | _mixture_tensors(block.mixture, kind)
    assert block.gate_up is not None
    assert block.down is not None
    tensors |= _feed_forward_tensors("mlp", block.gate_up, block.down)
    if block.gate_up_bias is not None and block.down_bias is not None:
        gate_bias, up_bias = block.gate_up_bias.chunk(2)
        tensors |= {"mlp.gate_proj.bias": gate_bias, "mlp.up_proj.bias": up_bias}
        tensors["mlp.down_proj.bias"] = block.down_bias
    return tensors


def _feed_forward_tensors(prefix: str, gate_up: Tensor, down: Tensor) -> dict[str, Tensor]:
    gate, up = gate_up.chunk(2)
    return {
        f"{prefix}.gate_proj.weight": gate,
        f"{prefix}.up_proj.weight": up,
        f"{prefix}.down_proj.weight": down,
    }


def _mixture_tensors(mixture: Mixture, kind: str) -> dict[str, Tensor]:
    if kind == "mixtral":
        return _mixtral_tensors(mixture)
    tensors: dict[str, Tensor] = {"mlp.gate.weight": mixture.router}
    if mixture.selection_bias is not None:
        tensors["mlp.gate.e_score_correction_bias"] = mixture.selection_bias
    for expert, (gate_up, down) in enumerate(zip(mixture.gate_up, mixture.down, strict=True)):
        tensors |= _feed_forward_tensors(f"mlp.experts.{expert}", gate_up, down)
    if mixture.shared_gate_up is not None and mixture.shared_down is not None:
        name = "mlp.shared_expert" if kind == "qwen2_moe" else "mlp.shared_experts"
        tensors |= _feed_forward_tensors(name, mixture.shared_gate_up, mixture.shared_down)
    if mixture.shared_gate is not None:
        tensors["mlp.shared_expert_gate.weight"] = mixture.shared_gate
    return tensors


def _mixtral_tensors(mixture: Mixture) -> dict[str, Tensor]:
    prefix = "block_sparse_moe"
    tensors: dict[str, Tensor] = {f"{prefix}.gate.weight": mixture.router}
    for expert, (gate_up, down) in enumerate(zip(mixture.gate_up, mixture.down, strict=True)):
        gate, up = gate_up.chunk(2)
        for name, view in (("w1", gate), ("w2", down), ("w3", up)):
            tensors[f"{prefix}.experts.{expert}.{name}.weight"] = view
    return tensors


def _gpt2_tensors(model: Transformer) -> dict[str, Tensor]:
    assert model.positions is not None
    assert model.final_norm_bias is not None
    tensors: dict[str, Tensor] = {
        "transformer.wte.weight": model.embedding,
        "transformer.wpe.weight": model.positions,
    }
    for layer, block in enumerate(model.blocks):
        assert isinstance(block, Gpt2Block)
        # GPT-2's matrices are [in, out] there (a "Conv1D").
        parts = {
            "ln_1.weight": block.attention_norm,
            "ln_1.bias": block.attention_norm_bias,
            "attn.c_attn.weight": block.qkv.T,
            "attn.c_attn.bias": block.qkv_bias,
            "attn.c_proj.weight": block.attention_out.T,
            "attn.c_proj.bias": block.attention_out_bias,
            "ln_2.weight": block.feed_forward_norm,
            "ln_2.bias": block.feed_forward_norm_bias,
            "mlp.c_fc.weight": block.up.T,
            "mlp.c_fc.bias": block.up_bias,
            "mlp.c_proj.weight": block.down.T,
            "mlp.c_proj.bias": block.down_bias,
        }
        tensors |= {f"transformer.h.{layer}.{name}": view for name, view in parts.items()}
    tensors |= {
        "transformer.ln_f.weight": model.final_norm,
        "transformer.ln_f.bias": model.final_norm_bias,
    }
    if model.head is not None:
        tensors["lm_head.weight"] = model.head
    return {name: view.detach() for name, view in tensors.items()}


def is_superfluous(name: str, config_family: str) -> bool:
    """Whether a tensor of a file says nothing: the buffers that older versions saved (RoPE's frequencies,
    GPT-2's causal masks)."""
    if config_family == "gpt2":
        return name.endswith((".attn.bias", ".attn.masked_bias"))
    return name.endswith("rotary_emb.inv_freq")


def canonical_name(name: str, config_family: str) -> str:
    """The name of a file's tensor as `huggingface_tensors` has it: the first releases of GPT-2 leave the
    prefix out."""
    if config_family == "gpt2" and not name.startswith(("transformer.", "lm_head.")):
        return f"transformer.{name}"
    return name
