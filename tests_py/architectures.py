"""Small transformers models with random weights, saved as safetensors and compressed beside that."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import bigsmall

BASE = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
HEADS = {"num_key_value_heads": 2}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
T5 = {"vocab_size": 128, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 3, "num_heads": 4}
OPT = {**{name: value for name, value in BASE.items() if name != "intermediate_size"}, "ffn_dim": 96, "word_embed_proj_dim": 64}
DEEPSEEK = {
    "num_key_value_heads": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 1,
    "topk_group": 1,
    "moe_intermediate_size": 32,
    "first_k_dense_replace": 1,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}

CONFIGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("AutoModelForCausalLM", "LlamaConfig", {**BASE, **HEADS, "tie_word_embeddings": False}),
    "llama_tied": ("AutoModelForCausalLM", "LlamaConfig", {**BASE, **HEADS, "tie_word_embeddings": True}),
    "mixtral": ("AutoModelForCausalLM", "MixtralConfig", {**BASE, **HEADS, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "gpt2": ("AutoModelForCausalLM", "GPT2Config", {"vocab_size": 128, "n_positions": 64, "n_embd": 64, "n_layer": 3, "n_head": 4}),
    "qwen3_moe": ("AutoModelForCausalLM", "Qwen3MoeConfig", {**BASE, **HEADS, **MOE, "head_dim": 16}),
    "gemma3": ("AutoModelForCausalLM", "Gemma3TextConfig", {**BASE, **HEADS, "head_dim": 16, "sliding_window": 8}),
    "gpt_neox": ("AutoModelForCausalLM", "GPTNeoXConfig", BASE),
    "phi3": ("AutoModelForCausalLM", "Phi3Config", {**BASE, **HEADS, "pad_token_id": 0}),
    "deepseek_v3": ("AutoModelForCausalLM", "DeepseekV3Config", {**BASE, **DEEPSEEK}),
    "gpt_oss": (
        "AutoModelForCausalLM",
        "GptOssConfig",
        {**BASE, **HEADS, "head_dim": 16, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 8},
    ),
    "mamba": ("AutoModelForCausalLM", "MambaConfig", {"vocab_size": 128, "hidden_size": 64, "num_hidden_layers": 3, "state_size": 8}),
    "bert": ("AutoModelForMaskedLM", "BertConfig", BASE),
    "opt": ("AutoModelForCausalLM", "OPTConfig", OPT),
    "t5": ("AutoModelForSeq2SeqLM", "T5Config", T5),
    "bloom": ("AutoModelForCausalLM", "BloomConfig", {"vocab_size": 128, "hidden_size": 64, "n_layer": 3, "n_head": 4}),
    "albert": ("AutoModelForMaskedLM", "AlbertConfig", {**BASE, "embedding_size": 32}),
}
"""Auto class, configuration class, and the configuration, by name."""


def make(name: str, folder: Path, *, dtype: str = "bfloat16", **save: Any) -> tuple[Any, Path, Path]:
    """The model's `Auto` class; a folder with its safetensors files and one with its `.bs` files. `save` is for `save_pretrained`."""
    import torch
    import transformers

    auto_class, config_class, settings = CONFIGS[name]
    auto = getattr(transformers, auto_class)
    torch.manual_seed(0)
    model = auto.from_config(getattr(transformers, config_class)(**settings)).to(getattr(torch, dtype))
    original, packed = folder / name, folder / f"{name}-bs"
    model.save_pretrained(original, **save)
    bigsmall.compress(original, packed)
    return auto, original, packed


def inputs(name: str) -> dict[str, Any]:
    """What to call the model with."""
    import torch

    ids = torch.arange(4, 14).view(1, 10)
    return {"input_ids": ids} | ({"decoder_input_ids": ids[:, :4]} if name == "t5" else {})


def state(model: Any) -> dict[str, tuple[Any, ...]]:
    """Everything that two models must agree in: dtype, shape and bits of each parameter and buffer, kept ones and others."""
    import torch

    tensors = dict(model.state_dict()) | {f"buffer {name}": buffer for name, buffer in model.named_buffers()}
    return {
        name: (tensor.dtype, tuple(tensor.shape), tensor.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        for name, tensor in tensors.items()
    }


Make = Callable[..., tuple[Any, Path, Path]]
