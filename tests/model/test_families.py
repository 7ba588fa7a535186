"""Every family against its class in transformers: logits of random weights in both directions."""

import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from bessemer.model import ModelConfig, Transformer, load_model, save_model
from bessemer.model.kernels import torch_operations

NUM_TOKENS = 40
SIZES = {
    "vocab_size": 97,
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 72,
    "max_position_embeddings": 64,
}
EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 16}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]

THEIRS = {
    "llama, grouped queries": ("Llama", {}),
    "llama, one key/value head, tied": ("Llama", {"num_key_value_heads": 1, "tie_word_embeddings": True}),
    "llama, wide heads": ("Llama", {"num_key_value_heads": 4, "head_dim": 26, "rms_norm_eps": 1e-5}),
    "llama, attention biases": ("Llama", {"attention_bias": True}),
    "llama, all biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, linear scaling": (
        "Llama",
        {"rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 3.0}},
    ),
    "llama 3.1": ("Llama", {"rope_parameters": LLAMA3, "head_dim": 64}),
    "llama, yarn": ("Llama", {"rope_parameters": YARN, "head_dim": 32}),
    "llama, yarn with its own temperature": (
        "Llama",
        {"rope_parameters": {**YARN, "attention_factor": 1.3, "beta_fast": 16.0, "truncate": False}},
    ),
    "llama, yarn as in DeepSeek": (
        "Llama",
        {"rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.6}, "head_dim": 64},
    ),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral, window": ("Mistral", {"sliding_window": 7}),
    "mistral, window of one": ("Mistral", {"sliding_window": 1}),
    "ministral, mixed layers": ("Ministral", {"sliding_window": 5, "layer_types": MIXED, "head_dim": 12}),
    "qwen2, biases": ("Qwen2", {}),
    "qwen2, windows in the last layers": (
        "Qwen2",
        {"use_sliding_window": True, "sliding_window": 6, "max_window_layers": 1},
    ),
    "qwen3, QK-norm": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "qwen3, biases": ("Qwen3", {"head_dim": 12, "attention_bias": True}),
    "qwen3, mixed layers and yarn": (
        "Qwen3",
        {
            "head_dim": 32,
            "use_sliding_window": True,
            "sliding_window": 9,
            "layer_types": MIXED,
            "rope_parameters": YARN,
        },
    ),
    "mixtral": ("Mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8}),
    "qwen3 mixture": ("Qwen3Moe", {**EXPERTS, "num_experts": 5, "norm_topk_prob": True, "head_dim": 12}),
    "qwen3 mixture, raw weights, every second layer": (
        "Qwen3Moe",
        {**EXPERTS, "num_experts": 8, "num_experts_per_tok": 3, "decoder_sparse_step": 2, "head_dim": 16},
    ),
    "qwen3 mixture, named dense layers": (
        "Qwen3Moe",
        {**EXPERTS, "num_experts": 4, "mlp_only_layers": [1], "norm_topk_prob": True, "head_dim": 12},
    ),
    "qwen2 mixture, shared expert": (
        "Qwen2Moe",
        {**EXPERTS, "num_experts": 6, "shared_expert_intermediate_size": 40},
    ),
    "qwen2 mixture, windows": (
        "Qwen2Moe",
        {
            **EXPERTS,
            "num_experts": 4,
            "shared_expert_intermediate_size": 40,
            "use_sliding_window": True,
            "sliding_window": 6,
            "qkv_bias": False,
        },
    ),
    "dots1": (
        "Dots1",
        {
            **EXPERTS,
            "n_routed_experts": 6,
            "n_shared_experts": 2,
            "first_k_dense_replace": 1,
            "norm_topk_prob": True,
            "routed_scaling_factor": 1.7,
        },
    ),
    "gpt2": ("GPT2", {"n_inner": None}),
    "gpt2, separate head, own width": ("GPT2", {"n_inner": 70, "tie_word_embeddings": False}),
}

OURS = {
    "plain": {},
    "all biases, llama3": {
        "attention_bias": True,
        "attention_out_bias": True,
        "mlp_bias": True,
        "rope_scaling": {name: value for name, value in LLAMA3.items() if name != "rope_theta"},
    },
    "qwen2": {"attention_bias": True, "sliding_window": 6, "window_layers": (0, 2)},
    "qwen3, yarn": {
        "qk_norm": True,
        "head_dim": 26,
        "rope_scaling": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16},
    },
    "mistral": {"sliding_window": 6},
    "ministral": {"sliding_window": 6, "window_layers": (1,)},
    "mixtral": {"mixture": {"num_experts": 4, "experts_per_token": 2, "expert_size": 24}},
    "qwen3_moe": {
        "qk_norm": True,
        "sliding_window": 6,
        "mixture": {"num_experts": 5, "experts_per_token": 2, "expert_size": 24, "dense_layers": (0,)},
    },
    "qwen2_moe": {
        "mixture": {"num_experts": 4, "experts_per_token": 3, "expert_size": 24, "shared_size": 17},
    },
    "dots1": {
        "qk_norm": True,
        "sliding_window": 6,
        "window_layers": (1,),
        "mixture": {
            "num_experts": 4,
            "experts_per_token": 2,
            "expert_size": 24,
            "shared_size": 48,
            "scores": "sigmoid",
            "dense_layers": (0,),
        },
    },
    "gpt2": {"family": "gpt2", "num_key_value_heads": 4},
}


def their_model(name):
    family, options = THEIRS[name]
    sizes = SIZES
    if family == "GPT2":
        sizes = {"vocab_size": 97, "n_embd": 48, "n_layer": 3, "n_head": 4, "n_positions": 64}
    config = getattr(transformers, f"{family}Config")(**{"tie_word_embeddings": False, **sizes, **options})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        # Norms and biases too: at one and zero they prove nothing.
        for tensor in (*model.parameters(), *_selection_biases(model)):
            tensor.add_(0.1 * torch.randn_like(tensor))
    return model


def _selection_biases(model):
    return [buffer for name, buffer in model.named_buffers() if name.endswith("e_score_correction_bias")]


def our_model(**options):
    model = Transformer(ModelConfig(**{**SIZES, **options})).initialize(0).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            # Not the biases alone, but so that they decide some choices of experts.
            scale = 0.05 if name.endswith("selection_bias") else 0.1
            tensor.add_(scale * torch.randn(tensor.shape, generator=generator))
    return model


def token_ids():
    return torch.randint(97, (2, NUM_TOKENS), generator=torch.Generator().manual_seed(0))


def assert_same_logits(ours, theirs):
    with torch.inference_mode():
        expected = theirs(token_ids()).logits
        actual = ours.logits(ours(token_ids()))
        with torch_operations():
            plain = ours.logits(ours(token_ids()))
    assert float(expected.std()) > 0.05
    assert float((actual - expected).abs().max()) < 1e-4
    assert float((plain - expected).abs().max()) < 1e-4


@pytest.mark.parametrize("name", THEIRS)
def test_folders_written_by_transformers_give_the_same_logits(name, tmp_path):
    theirs = their_model(name)
    theirs.save_pretrained(tmp_path)
    assert_same_logits(load_model(tmp_path).eval(), theirs)


@pytest.mark.parametrize("name", OURS)
def test_our_folders_open_in_transformers_with_the_same_logits(name, tmp_path):
    model = our_model(**OURS[name])
    save_model(model, tmp_path, tokenizer_folder=None, generation={}, card="")
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values()), report
    assert theirs.config.model_type == name.partition(",")[0].replace("plain", "llama").replace(
        "all biases", "llama"
    )
    assert_same_logits(model, theirs)


def test_gpt2_folders_of_the_first_release_are_read(tmp_path):
    """Their tensors have no `transformer.` before their names, and causal masks among them."""
    from safetensors.torch import load_file, save_file

    theirs = their_model("gpt2")
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in load_file(path).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    save_file(tensors, path, metadata={"format": "pt"})
    assert_same_logits(load_model(tmp_path).eval(), theirs)
