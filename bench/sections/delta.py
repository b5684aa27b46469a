"""Patches: drawn weights after updates of several sizes, and pairs of the checkpoints beside the repository, beside other tools' deltas."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import child
import environment
import inputs
from checkpoint import Checkpoint
from rivals import published, zipnn, zstd

if TYPE_CHECKING:
    from results import Facts
    from run import Run

N_WORDS = 1 << 24
ROW_WORDS = 4096

SPEED_AIM = 1e9
"""Raw bytes a second, encoding and decoding, on one thread of an AVX-512 machine."""


class Update(NamedTuple):
    """A change of drawn BF16 weights, and the bits per weight to reach."""

    key: str
    label: str
    aim: float


UPDATES = (
    Update("1e-4", "normal update, relative size 0.0001", 0.12),
    Update("1e-3", "normal update, relative size 0.001", 1.00),
    Update("1e-2", "normal update, relative size 0.01", 4.0),
    Update("1e-1", "normal update, relative size 0.1", 7.45),
    Update("step", "a step of one size for all weights, which moves 3-4 % of them", 0.23),
)

PAIRS = (
    ("lora_roberta_agnews_step0500", "lora_roberta_agnews_step1000"),
    ("lora_roberta_agnews_step1000", "lora_roberta_agnews_step1200"),
    ("lora_roberta_agnews_step1000_bf16", "lora_roberta_agnews_step1200_bf16"),
    ("lora_sd15_disney_f32", "lora_sd15_disney_pt"),
    ("realcugan_se_up2x-conservative_f16", "realcugan_se_up2x-no-denoise_f16"),
    ("realcugan_pro_up3x-conservative_f16", "realcugan_pro_up3x-no-denoise_f16"),
    ("retsim_v1_f32_oldnames", "retsim_v1_f32"),
    ("aesthetic_ava_linear", "aesthetic_sac_linear"),
    ("faststyle_wave_f32", "faststyle_la_muse_f32"),
)

RIVALS = {"published": published.RIVAL, "zipnn": zipnn.RIVAL, "zstd": zstd.RIVAL}


class UpdateRow(NamedTuple):
    update: Update
    facts: Facts


class PairRow(NamedTuple):
    """Sizes in bytes by rival, `bigsmall` and `alone` among them; one that failed has None."""

    label: str
    raw_bytes: int
    bytes: dict[str, int | None]


class Deltas(NamedTuple):
    updates: list[UpdateRow]
    pairs: list[PairRow]


def measure(run: Run) -> Deltas:
    updates = [
        UpdateRow(update, run.results.once(f"delta/{update.key}", child.call, "sections.delta:clock", {"key": update.key}, sys.executable))
        for update in UPDATES
    ]
    pairs = []
    for base_name, tuned_name in PAIRS[:: 4 if run.quick else 1]:
        base, tuned = (inputs.SHARED_WEIGHTS / f"{name}.safetensors" for name in (base_name, tuned_name))
        if not (base.exists() and tuned.exists()):
            continue
        arguments = {"base": str(base), "tuned": str(tuned), "scratch": str(run.scratch)}
        sizes: dict[str, int | None] = {}
        ours = run.results.once(f"delta/{tuned_name}/bigsmall", child.call, "sections.delta:patch", arguments)
        sizes |= {"bigsmall": ours.get("bytes"), "alone": ours.get("alone_bytes")}
        for name, rival in RIVALS.items():
            facts = run.results.once(f"delta/{tuned_name}/{name}", in_environment, name, rival.name, rival.requirements, arguments)
            sizes[name] = facts.get("bytes")
        pairs.append(PairRow(f"{base_name} to {tuned_name}", tuned.stat().st_size, sizes))
    return Deltas(updates, pairs)


def in_environment(name: str, rival: str, requirements: tuple[str, ...], arguments: dict[str, str]) -> Facts:
    return child.call(f"sections.delta:patch_{name}", arguments, environment.interpreter(rival, requirements))


def updated(key: str) -> tuple[bytes, bytes]:
    """BF16 words and the same after the update."""
    import numpy as np
    import torch

    def cast(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values).to(torch.bfloat16)

    rng = np.random.default_rng(0)
    base = cast(rng.standard_normal(N_WORDS, np.float32) * np.float32(inputs.WEIGHT_SCALE))
    weights = base.float().numpy()
    if key == "step":
        size = np.float32(1.8e-6) * rng.choice(np.array([-1, 1], np.float32), N_WORDS)
    else:
        size = rng.standard_normal(N_WORDS, np.float32) * np.float32(inputs.WEIGHT_SCALE * float(key))
    return (tensor.view(torch.uint8).numpy().tobytes() for tensor in (base, cast(weights + size)))  # type: ignore[return-value]


def clock(key: str) -> Facts:
    """Size of the patch file with all that belongs to it, and the speed of the codec in memory."""
    import bigsmall

    import checkpoint

    base, tuned = updated(key)
    with tempfile.TemporaryDirectory() as directory:
        shape = (N_WORDS // ROW_WORDS, ROW_WORDS)
        paths = [Path(directory, f"{name}.safetensors") for name in ("base", "tuned", "back")]
        for path, words in zip(paths, (base, tuned), strict=False):
            checkpoint.write(path, "BF16", {"weight": shape}, iter([memoryview(words)]))
        patch = Path(directory, "patch.bs")
        bigsmall.compress(paths[1], patch, delta_from=paths[0])
        bigsmall.apply(paths[0], patch, paths[2])
        if paths[2].read_bytes() != paths[1].read_bytes():
            raise ValueError("the patch does not give the weights back")
        n_bytes = patch.stat().st_size
    started = time.perf_counter()
    speeds = []
    while len(speeds) < 3 or (time.perf_counter() - started < 3 and len(speeds) < 10):
        speeds.append(bigsmall._core.codec_speed(tuned, "BF16", ROW_WORDS, base=base, repeat=3))
    return {
        "bits_per_weight": 8 * n_bytes / N_WORDS,
        "changed": sum(a != b for a, b in zip(memoryview(base).cast("H")[:100_000], memoryview(tuned).cast("H")[:100_000], strict=True))
        / 1e5,
        "encode_bytes_per_s": max(speed["encode_bytes_per_s"] for speed in speeds),
        "decode_bytes_per_s": max(speed["decode_bytes_per_s"] for speed in speeds),
    }


def patch(base: str, tuned: str, scratch: str) -> Facts:
    """The sizes of the patch and of the file that stands alone, both restored and compared."""
    import bigsmall

    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        patched, alone, back = (Path(directory, name) for name in ("patch.bs", "alone.bs", "back.safetensors"))
        bigsmall.compress(tuned, patched, delta_from=base)
        bigsmall.compress(tuned, alone)
        bigsmall.apply(base, patched, back)
        if back.read_bytes() != Path(tuned).read_bytes():
            raise ValueError("the patch does not give the checkpoint back")
        return {"bytes": patched.stat().st_size, "alone_bytes": alone.stat().st_size}


def patch_published(base: str, tuned: str, scratch: str) -> Facts:
    """The published package's delta."""
    import os

    os.environ["BIGSMALL_DISABLE_VERSION_CHECK"] = "1"
    import bigsmall

    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        out = Path(directory, "delta.bs")
        bigsmall.compress_delta(tuned, base, out, workers=1, progress=False)
        return {"bytes": out.stat().st_size}


def patch_zipnn(base: str, tuned: str, scratch: str) -> Facts:
    """ZipNN's way with deltas: the exclusive or of both files' data, compressed."""
    import numpy as np
    import zipnn

    of_tuned, of_base = (Checkpoint(Path(path)) for path in (tuned, base))
    if of_tuned.dtype != of_base.dtype or len(of_tuned.data) != len(of_base.data):
        raise ValueError("ZipNN's delta is for files of the same length")
    difference = np.bitwise_xor(np.frombuffer(of_tuned.data, np.uint8), np.frombuffer(of_base.data, np.uint8)).tobytes()
    packed = zipnn_of(zipnn, of_tuned.dtype).compress(bytearray(difference))
    return {"bytes": len(of_tuned.header) + len(packed)}


def zipnn_of(package: object, dtype: str) -> object:
    return package.ZipNN(input_format="byte", bytearray_dtype=zipnn.NAMES[dtype], threads=1)  # type: ignore[attr-defined]


def patch_zstd(base: str, tuned: str, scratch: str) -> Facts:
    """What `zstd -19 --long=27 --patch-from` does: the base is a prefix that may be referred to."""
    import zstandard

    source, prefix = Path(tuned).read_bytes(), Path(base).read_bytes()
    parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=27, enable_ldm=True, source_size=len(source))
    dictionary = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    return {"bytes": len(zstandard.ZstdCompressor(compression_params=parameters, dict_data=dictionary).compress(source))}
