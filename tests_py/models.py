"""Small checkpoints, written as safetensors by hand: `safetensors` itself does not write every dtype from every library."""

import json
import struct
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

BITS = {
    "BOOL": 8,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "C64": 64,
    "F64": 64,
    "I64": 64,
    "U64": 64,
}
DTYPES = tuple(BITS)


class Raw(NamedTuple):
    """A tensor as safetensors sees it; `shape` counts elements."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def weights(dtype: str, *shape: int, seed: int = 0) -> Raw:
    """Values that look like trained weights where the dtype is a float of two bytes and more, otherwise skewed bytes or small integers."""
    rng = np.random.default_rng([seed, *shape])
    n_elements = prod(shape)
    n_bytes, rest = divmod(n_elements * BITS[dtype], 8)
    assert rest == 0, f"{dtype} {shape} does not fill whole bytes"
    normal = rng.normal(0, 0.05, n_bytes).astype("<f4")
    match dtype:
        case "BF16":
            data = (normal[:n_elements].view("<u4") >> 16).astype("<u2").tobytes()
        case "F16" | "F32" | "F64":
            data = normal[:n_elements].astype(f"<f{BITS[dtype] // 8}").tobytes()
        case "C64":
            data = normal[: 2 * n_elements].tobytes()
        case "BOOL":
            data = (normal > 0.02).astype("u1").tobytes()
        case "I16" | "U16" | "I32" | "U32" | "I64" | "U64":
            values = np.abs(normal[:n_elements] * 1000).astype("<i8") if dtype[0] == "U" else (normal[:n_elements] * 1000).astype("<i8")
            data = values.astype(f"<{dtype[0].lower()}{BITS[dtype] // 8}").tobytes()
        case _:
            data = (normal * 400).astype("i1").tobytes()
    return Raw(dtype, shape, data)


def safetensors_bytes(tensors: Mapping[str, Raw], metadata: Mapping[str, str] | None = None) -> bytes:
    """The file that the safetensors crate writes for these tensors in this order."""
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, raw in tensors.items():
        header[name] = {"dtype": raw.dtype, "shape": list(raw.shape), "data_offsets": [offset, offset + len(raw.data)]}
        offset += len(raw.data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + b"".join(raw.data for raw in tensors.values())


def write_safetensors(path: Path, tensors: Mapping[str, Raw], metadata: Mapping[str, str] | None = None) -> Path:
    path.write_bytes(safetensors_bytes(tensors, metadata))
    return path


def llama(n_layers: int = 2, width: int = 64, dtype: str = "BF16") -> dict[str, Raw]:
    """The tensors of a small Llama with a tied head."""
    tensors = {"model.embed_tokens.weight": weights(dtype, 256, width)}
    for layer in range(n_layers):
        prefix = f"model.layers.{layer}."
        for k, (name, shape) in enumerate(
            {
                "input_layernorm.weight": (width,),
                "self_attn.q_proj.weight": (width, width),
                "self_attn.k_proj.weight": (width // 2, width),
                "self_attn.v_proj.weight": (width // 2, width),
                "self_attn.o_proj.weight": (width, width),
                "post_attention_layernorm.weight": (width,),
                "mlp.gate_proj.weight": (3 * width, width),
                "mlp.up_proj.weight": (3 * width, width),
                "mlp.down_proj.weight": (width, 3 * width),
            }.items()
        ):
            tensors[prefix + name] = weights(dtype, *shape, seed=100 * layer + k)
    tensors["model.norm.weight"] = weights(dtype, width, seed=7)
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    return tensors


def write_model_dir(path: Path, n_shards: int = 2) -> dict[str, Raw]:
    """A sharded model directory with index, config, tokenizer and a nested file, as the Hub has them. Returns its tensors."""
    tensors = llama()
    names = list(tensors)
    path.mkdir()
    weight_map = {}
    for shard in range(n_shards):
        file_name = f"model-{shard + 1:05}-of-{n_shards:05}.safetensors"
        members = names[shard::n_shards]
        write_safetensors(path / file_name, {name: tensors[name] for name in members}, {"format": "pt"})
        weight_map |= dict.fromkeys(members, file_name)
    total_size = sum(len(raw.data) for raw in tensors.values())
    index = {"metadata": {"total_size": total_size}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    (path / "config.json").write_text('{"model_type": "llama"}\n')
    (path / "tokenizer.json").write_text("{}\n")
    (path / "1_Pooling").mkdir()
    (path / "1_Pooling" / "config.json").write_text("{}\n")
    return tensors


def files_of(directory: Path) -> dict[str, bytes]:
    """Every file below the directory: relative path to contents."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}
