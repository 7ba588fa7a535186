"""Models written to GGUF with llama.cpp's names and orders, by the `gguf` package, and read back."""

import numpy as np
import pytest
import torch

from bessemer.errors import BessemerError
from bessemer.model import ModelConfig, Transformer, load_model
from bessemer.model.gguf import gguf_name
from bessemer.model.rope_scaling import Llama3Scaling
from bessemer.model.tensor_names import huggingface_tensors

gguf = pytest.importorskip("gguf")

SIZES = {
    "vocab_size": 64,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 32,
}
LLAMA3 = Llama3Scaling(
    factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
)
MODELS = {
    "llama": {"rope_theta": 5e5},
    "llama, untied, with Llama 3's frequencies": {"tie_word_embeddings": False, "rope_scaling": LLAMA3},
    "llama, experts": {"mixture": {"num_experts": 4, "experts_per_token": 2, "expert_size": 96}},
    "qwen2": {
        "attention_bias": True,
        "rope_scaling": {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 16},
    },
    "qwen3": {"qk_norm": True, "head_dim": 32},
    "qwen3moe": {
        "qk_norm": True,
        "mixture": {"num_experts": 4, "experts_per_token": 2, "expert_size": 32},
    },
}


def random_model(**options):
    model = Transformer(ModelConfig(**SIZES, **options)).initialize(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def pairs_together(rows, num_heads):
    """llama.cpp's order of rotated rows in its llama files (its converter's `permute`)."""
    return rows.reshape(num_heads, 2, -1, rows.shape[1]).transpose(0, 2, 1, 3).reshape(rows.shape)


def quantized(name, array, kind):
    """The bytes of a tensor and their type; vectors stay as they are."""
    type = gguf.GGMLQuantizationType[kind if array.ndim > 1 else "F32"]
    return gguf.quants.quantize(array, type), type


def write_gguf(model, architecture, path, kind="F32", leave_out=(), quantize=quantized):
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.mixture is not None:
        writer.add_expert_count(config.mixture.num_experts)
        writer.add_expert_used_count(config.mixture.experts_per_token)
        writer.add_expert_feed_forward_length(config.mixture.expert_size)
    tensors = {}
    for name, view in huggingface_tensors(model).items():
        theirs, expert = gguf_name(name)
        array = view.numpy()
        if architecture == "llama" and theirs.split(".")[-2] in ("attn_q", "attn_k"):
            heads = config.num_attention_heads if "attn_q" in theirs else config.num_key_value_heads
            array = pairs_together(array, heads)
        tensors.setdefault(theirs, []).append(array) if expert is not None else tensors.update(
            {theirs: array}
        )
    scaling = config.rope_scaling
    if scaling is LLAMA3:
        plain = config.rope_theta ** -(torch.arange(0, config.head_dim, 2) / config.head_dim)
        tensors["rope_freqs.weight"] = (plain / scaling.frequencies(plain, config.rope_theta)).numpy()
    elif scaling is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(scaling.factor)
        writer.add_rope_scaling_orig_ctx_len(scaling.original_max_position_embeddings)
    for name, value in tensors.items():
        array = np.stack(value) if isinstance(value, list) else np.ascontiguousarray(value)
        if name not in leave_out:
            raw, type = quantize(name, array, kind)
            writer.add_tensor(name, raw, raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def logits(model):
    token_ids_BT = torch.randint(64, (2, 24), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return model.logits(model(token_ids_BT))


@pytest.mark.parametrize("name", MODELS)
def test_a_model_comes_back_with_its_shape_and_its_logits(name, tmp_path):
    model = random_model(**MODELS[name])
    write_gguf(model, name.partition(",")[0], tmp_path / "model.gguf")
    loaded = load_model(tmp_path / "model.gguf")
    assert loaded.config == model.config
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-6)


def test_quantised_experts_come_back_near_what_they_were(tmp_path):
    model = random_model(**MODELS["qwen3moe"])
    write_gguf(model, "qwen3moe", tmp_path / "model.gguf", kind="Q8_0")
    loaded = load_model(tmp_path / "model.gguf")
    ours, theirs = huggingface_tensors(model), huggingface_tensors(loaded)
    for name, tensor in ours.items():
        assert float((tensor - theirs[name]).abs().max()) <= float(tensor.abs().max()) / 127, name


def k_quants(name, array, kind):
    """Random blocks in the mix of a Q4_K_M file, or ("F32") what the reference reads from them."""
    if array.ndim < 2:
        return quantized(name, array, "F32")
    type = gguf.GGMLQuantizationType["Q6_K" if "embd" in name or "ffn_down" in name else "Q4_K"]
    size = {"Q4_K": 144, "Q6_K": 210}[type.name]
    draw = np.random.Generator(np.random.Philox(sum(name.encode())))
    raw = draw.integers(0, 256, (*array.shape[:-1], array.shape[-1] // 256, size), dtype=np.uint8)
    scales = np.array([3e-4, 2e-3], dtype=np.float16).view(np.uint8)
    if type.name == "Q4_K":
        raw[..., :4] = scales
    else:
        raw[..., -2:] = scales[:2]
    raw = raw.reshape(*array.shape[:-1], -1)
    return quantized(name, gguf.quants.dequantize(raw, type), kind) if kind == "F32" else (raw, type)


def test_a_file_of_k_quants_computes_what_the_reference_reads_from_it(tmp_path):
    sizes = {**SIZES, "hidden_size": 256, "intermediate_size": 512}
    model = Transformer(ModelConfig(**sizes)).initialize(0).requires_grad_(False)
    for kind in ("Q4_K_M", "F32"):
        write_gguf(model, "llama", tmp_path / f"{kind}.gguf", kind, quantize=k_quants)
    ours, reference = (logits(load_model(tmp_path / f"{kind}.gguf")) for kind in ("Q4_K_M", "F32"))
    assert float(reference.std()) > 0.01
    torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4 * float(reference.abs().max()))


def test_tensors_that_do_not_fit_are_named_together(tmp_path):
    model = random_model()
    write_gguf(model, "llama", tmp_path / "model.gguf", leave_out=("blk.1.ffn_up.weight",))
    path = tmp_path / "model.gguf"
    data = path.read_bytes().replace(b"blk.0.attn_k.weight", b"blk.0.attn_X.weight")
    path.write_bytes(data)
    with pytest.raises(BessemerError) as raised:
        load_model(path)
    for fault in (
        "blk.1.ffn_up.weight: missing",
        "blk.0.attn_k.weight: missing",
        "blk.0.attn_X.weight: unexpected",
    ):
        assert fault in str(raised.value)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        (b"\x05\0\0\0\0\0\0\0llama", b"\x05\0\0\0\0\0\0\0mamba", "architecture 'mamba' is not supported"),
        (b"llama.block_count", b"llama.block_coXnt", "llama.block_count is None"),
        (b"token_embd.weight", b"token_embX.weight", "has no token_embd.weight"),
    ],
)
def test_metadata_that_cannot_be_used_says_why(before, after, message, tmp_path):
    path = tmp_path / "model.gguf"
    write_gguf(random_model(), "llama", path)
    data = path.read_bytes()
    assert before in data
    path.write_bytes(data.replace(before, after, 1))
    with pytest.raises(BessemerError, match=message):
        load_model(path)
