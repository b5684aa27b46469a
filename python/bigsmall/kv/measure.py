"""What coding a cache takes and what it does to a model: the figures that `bigsmall kv bench` prints."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import torch

from . import reference
from .basis import KEY, KVBasis
from .cache import TransformCodedCache
from .calibrate import KVCalibrator
from .codec import KVCodec
from .int8 import Int8KVCache
from .plan import KVPlan
from .recorder import Recorder
from .rivals import Rival
from .states import Pair, layer_pairs

LADDER = (128, 256, 512, 1024, 2048, 4096)


@dataclass(frozen=True)
class Shape:
    """A cache: layers, K/V heads, width of a head."""

    layers: int
    heads: int
    head_dim: int


@dataclass(frozen=True)
class Timing:
    """Milliseconds: medians of whole runs, and of their stages."""

    compress_ms: float
    decompress_ms: float
    compress_stages: dict[str, float]
    decompress_stages: dict[str, float]
    reference_compress_ms: float
    reference_decompress_ms: float
    reference_sections: int
    sections: int
    raw_bytes: int
    coded_bytes: int


@dataclass(frozen=True)
class Quality:
    """A scheme on a model: bits an element of the coded tokens, ratio of 16 bits to them, ratio of the whole cache with its exact tokens,
    squared errors as shares of the variance, Kullback-Leibler divergence of the
    next tokens' distributions (nats), and how often the likeliest token is the same."""

    name: str
    transform: str
    bits: float
    ratio: float
    whole_ratio: float
    nmse_keys: float
    nmse_values: float
    cosine: float
    kl: float
    agreement: float


def synthetic_cache(shape: Shape, n_tokens: int, seed: int, dtype: torch.dtype = torch.bfloat16) -> list[Pair]:
    """Keys and values of random directions with falling variances, tokens like the ones before, a mean, and noise; `[1, H, T, D]` of each
    layer."""
    model, chance = torch.Generator().manual_seed(1234), torch.Generator().manual_seed(seed)
    width = shape.heads * shape.head_dim
    rank = max(width // 8, 1)
    pairs = []
    for _ in range(shape.layers):
        pair = []
        for _ in range(2):
            directions = torch.randn(rank, width, generator=model) * (torch.arange(1, rank + 1) ** -0.7)[:, None]
            steps = torch.randn(n_tokens + 16, rank, generator=chance)
            # The last sixteen steps with falling weight: what an autoregressive process of 0.7 is up to a thousandth.
            latent = sum(0.71 * 0.7**i * steps[16 - i : 16 - i + n_tokens] for i in range(16))
            assert isinstance(latent, torch.Tensor)
            rows = latent @ directions + 0.05 * torch.randn(n_tokens, width, generator=chance) + torch.randn(width, generator=model)
            pair.append(rows.reshape(1, n_tokens, shape.heads, shape.head_dim).transpose(1, 2).to(dtype))
        pairs.append((pair[0], pair[1]))
    return pairs


def measure_times(
    config: Any,
    shape: Shape,
    n_tokens: int,
    *,
    wish: dict[str, Any],
    runs: int = 5,
    reference_sections: int = 2,
    sink: int = 4,
    window: int = 128,
) -> Timing:
    """Coding and decoding the middle of a synthetic cache; the plain reference on a few of its sections (head, keys or values), which takes
    too long for all."""
    basis = KVCalibrator(config).observe(synthetic_cache(shape, 4 * n_tokens, 1)).finish()
    plan = basis.plan(**wish)
    pairs = [(k[:, :, sink : n_tokens - window], v[:, :, sink : n_tokens - window]) for k, v in synthetic_cache(shape, n_tokens, 2)]
    codec = KVCodec(basis, plan)
    encode_runs, decode_runs = [], []
    for _ in range(runs + 1):
        codec.recorder = Recorder()
        start = time.perf_counter()
        chunks = [codec.encode(*pair, layer=layer, first=sink) for layer, pair in enumerate(pairs)]
        encode_runs.append((time.perf_counter() - start, codec.recorder.seconds))
        codec.recorder = Recorder()
        start = time.perf_counter()
        for chunk in chunks:
            codec.decode(chunk, dtype=torch.bfloat16)
        decode_runs.append((time.perf_counter() - start, codec.recorder.seconds))
    n_sections = 2 * shape.layers * shape.heads
    taken = min(reference_sections, n_sections)
    compress_s, decompress_s = _reference_times(config, pairs, taken, sink)
    scale = 1000 * n_sections / max(taken, 1)
    return Timing(
        _median(encode_runs[1:]),
        _median(decode_runs[1:]),
        _stages(encode_runs[1:]),
        _stages(decode_runs[1:]),
        compress_s * scale,
        decompress_s * scale,
        taken,
        n_sections,
        sum(2 * k.numel() * k.element_size() for k, _ in pairs),
        sum(chunk.n_bytes for chunk in chunks),
    )


def _median(runs: Sequence[tuple[float, dict[str, float]]]) -> float:
    return 1000 * median(seconds for seconds, _ in runs)


def _stages(runs: Sequence[tuple[float, dict[str, float]]]) -> dict[str, float]:
    return {stage: 1000 * median(stages.get(stage, 0.0) for _, stages in runs) for stage in runs[0][1]}


def _reference_times(config: Any, pairs: list[Pair], n_sections: int, first: int) -> tuple[float, float]:
    """Seconds of coding and decoding that many heads' keys by the reference."""
    heads = pairs[0][0].shape[1]
    if not n_sections:
        return 0.0, 0.0
    calibrator = KVCalibrator(config, group="head", sink=0)
    basis = calibrator.observe(pairs, positions=torch.arange(first, first + pairs[0][0].shape[2])).finish()
    compress_s = decompress_s = 0.0
    for section in range(n_sections):
        layer, head = divmod(section, heads)
        group = next(one for one in basis.groups if (one.kind, one.layers, one.heads) == (KEY, (layer,), (head,)))
        rows = pairs[layer][0][0, head].double().tolist()
        positions = range(first, first + len(rows))
        mean, vectors, variances = group.mean.double().tolist(), group.vectors.double().tolist(), group.variances.double().tolist()
        start = time.perf_counter()
        turned = reference.rotate(rows, positions, basis.rope[layer].inv_freq, -1.0)
        widths = reference.allocate(variances, int(5.6 * len(mean)))
        made = reference.encode(reference.transform(turned, mean, vectors), widths)
        compress_s += time.perf_counter() - start
        start = time.perf_counter()
        restored = reference.restore(reference.decode(made), mean, vectors)
        reference.rotate(restored, positions, basis.rope[layer].inv_freq, 1.0)
        decompress_s += time.perf_counter() - start
    return compress_s, decompress_s


def measure_quality(model: Any, sequences: Sequence[torch.Tensor], rival: Rival, *, scored: int, sink: int, window: int) -> Quality:
    """The scheme on token ids `[1, T]` of each sequence: the middle of the cache of all but the last `scored` tokens is coded, then these
    are predicted."""
    sums = [0.0] * 7
    context = sequences[0].shape[1] - scored
    for ids in sequences:
        with torch.no_grad():
            exact = model(ids).logits[0, -scored:].double().log_softmax(-1)
            past = model(ids[:, :-scored], use_cache=True).past_key_values
            # Copied: the model's own tensors are overwritten below.
            pairs = [(k.float().clone(), v.float().clone()) for k, v in layer_pairs(past)]
            middle = [(k[:, :, sink : context - window], v[:, :, sink : context - window]) for k, v in pairs]
            restored, bits = rival.apply(middle, sink)
            for layer, (keys, values) in zip(past.layers, restored, strict=True):
                layer.keys[:, :, sink : context - window] = keys.to(layer.keys.dtype)
                layer.values[:, :, sink : context - window] = values.to(layer.values.dtype)
            found = model(ids[:, -scored:], past_key_values=past).logits[0].double().log_softmax(-1)
        errors = [_nmse([pair[i] for pair in middle], [pair[i] for pair in restored]) for i in (0, 1)]
        kl = float((exact.exp() * (exact - found)).sum(-1).mean())
        agreement = float((exact.argmax(-1) == found.argmax(-1)).double().mean())
        for i, figure in enumerate([bits, *errors, _cosine(middle, restored), kl, agreement, 1.0]):
            sums[i] += figure
    bits, nmse_keys, nmse_values, cosine, kl, agreement, n = sums
    bits /= n
    coded_tokens = context - sink - window
    whole = 16 * context / (bits * coded_tokens + 16 * (sink + window))
    return Quality(rival.name, rival.transform, bits, 16 / bits, whole, nmse_keys / n, nmse_values / n, cosine / n, kl / n, agreement / n)


def _nmse(exact: list[torch.Tensor], restored: list[torch.Tensor]) -> float:
    error = sum(float((a.double() - b.double()).square().sum()) for a, b in zip(exact, restored, strict=True))
    total = sum(float((a.double() - a.double().mean(2, keepdim=True)).square().sum()) for a in exact)
    return error / total


def _cosine(exact: list[Pair], restored: list[Pair]) -> float:
    """Mean cosine of vectors, in float64."""
    both = [(a[i].double(), b[i].double()) for a, b in zip(exact, restored, strict=True) for i in (0, 1)]
    return sum(float(torch.nn.functional.cosine_similarity(a, b, dim=-1).mean()) for a, b in both) / len(both)


def growth(config: Any, shape: Shape, basis: KVBasis | None, plan: KVPlan, ladder: Sequence[int] = LADDER) -> list[dict[str, Any]]:
    """For each number of tokens: bytes of 16-bit copies as computed, bytes of tensors as measured, and of the int8 and the coded cache; and
    what the process has grown by since the start, which
    counts whatever else it allocated."""
    from transformers import DynamicCache

    rows = []
    start = resident_bytes()
    for n_tokens in ladder:
        pairs = synthetic_cache(shape, n_tokens, 3)
        plain, int8, coded = DynamicCache(), Int8KVCache(config), TransformCodedCache(config, basis, plan)
        for layer, pair in enumerate(pairs):
            for cache in (plain, int8, coded):
                cache.update(*pair, layer)
        stats = coded.stats()
        per_token = 2 * shape.layers * shape.heads * shape.head_dim * 2
        rows.append(
            {
                "tokens": n_tokens,
                "analytic_bytes": per_token * n_tokens,
                "measured_bytes": sum(k.numel() * k.element_size() + v.numel() * v.element_size() for k, v in layer_pairs(plain)),
                "int8_analytic_bytes": 2 * shape.layers * shape.heads * (shape.head_dim + 2) * n_tokens,
                "int8_bytes": int8.nbytes(),
                "coded_bytes": stats["total"],
                "ratio": stats["ratio"],
                "resident_growth_bytes": resident_bytes() - start,
            }
        )
    return rows


def resident_bytes() -> int:
    """Memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * 4096
    except OSError:
        return 0


def bits_at_equal_kl(rows: Sequence[Quality], kl: float) -> float | None:
    """Bits that a family of schemes needs for that divergence, on the line between its measured points in logarithms; None outside of
    them."""
    points = sorted((row.kl, row.bits) for row in rows)
    for (low_kl, low_bits), (high_kl, high_bits) in pairwise(points):
        if low_kl <= kl <= high_kl and low_kl > 0:
            share = (math.log(kl) - math.log(low_kl)) / max(math.log(high_kl) - math.log(low_kl), 1e-12)
            return low_bits + share * (high_bits - low_bits)
    return None


def as_facts(rows: Sequence[Any]) -> list[dict[str, Any]]:
    return [asdict(row) for row in rows]


Progress = Callable[[str], None]
