"""What the values of a checkpoint tell about it, beside random weights."""

import os
from collections import Counter
from statistics import median
from typing import Any

from . import _core
from .progress import ProgressOption, reporting

CODER_BAND = 0.02
"""Bits a symbol below which a stream that differs from its control costs a coder nothing that would be noticed."""


def xray(
    path: str | os.PathLike[str],
    *,
    svd: bool = True,
    min_elements: int = 4096,
    threads: int = 0,
    progress: ProgressOption = None,
) -> dict[str, Any]:
    """Look at the values of the float tensors of a safetensors or `.bs` file, or of a directory of either.

    Words of BF16, F16, F32 and the FP8 types are cut into sign, exponent and mantissa; of F32, the mantissa's upper 7 bits. Each of these
    streams is compared with a *control*: what a normal distribution with the tensor's mean and deviation gives when it is rounded to the
    same dtype. The control's odds are integrals; nothing is drawn at random.

    Args:
        path: the file or directory.
        svd: calculate `rank1_frac`, which takes longer than all else.
        min_elements: tensors with fewer elements are left out: what they show is chance.
        threads: 0 means one per core. The result does not depend on it.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).

    Returns:
        A dict that can go into JSON.

        - `path`; `n_tensors`, `n_analyzed`, `min_elements`, and `raw_bytes` of the tensors that were looked at
        - `median_h_exp`, `median_h_mant` in bits, `median_ratio_pct`, `median_mant_divergence` in bits a symbol; None without tensors
        - `flag_counts`: how many tensors have each flag; `flags`: what each means
        - `n_matrices`: float tensors of two dimensions and more, also those that are too small to be looked at; `n_random`: those of them
          that have the exponents of random weights; `looks_untrained`: whether these are more than half
        - `tensors`, each with

          - `name`, `dtype`, `shape`, `n_elements`, and its `flags`
          - `sign`, `exp` and `mant`, each a dict of `entropy` in bits, with Miller and Madow's correction; its standard `error`;
            `control_entropy`; and `divergence`, the bits a symbol that coding with a table made for the control costs beyond an own one
          - `ratio_pct` and `control_ratio_pct`: the sum of the entropies in percent of the bits; for one-byte types, that of the byte
          - `mean`, `std`, `excess_kurtosis`; `sign_balance`, the share of values without a sign bit; `non_finite_share`
          - `rank1_frac`: the share of a matrix's squared norm that its leading singular value has, or None
          - `bf16_share`: the share of F32 words with a zero low half, or None
          - `exp_uniform_divergence`: the divergence of exponents from a uniform control
          - `exponents`: triples of a power of two, its occurrences, and those expected of the control

    Raises:
        SourceError, FormatError, VersionError, CorruptError: the checkpoint is not what it should be.
        OSError: FileNotFoundError, PermissionError.
    """
    with reporting(progress, "xray") as report:
        facts = _core.xray(path, min_elements=min_elements, svd=svd, threads=threads, progress=report)
    tensors = facts.pop("tensors")
    meanings = facts.pop("flags")
    counts = Counter(flag for tensor in tensors for flag in tensor["flags"])
    return {
        "path": os.fspath(path),
        **facts,
        "median_h_exp": _median([tensor["exp"]["entropy"] for tensor in tensors]),
        "median_h_mant": _median([tensor["mant"]["entropy"] for tensor in tensors]),
        "median_ratio_pct": _median([tensor["ratio_pct"] for tensor in tensors]),
        "median_mant_divergence": _median([tensor["mant"]["divergence"] for tensor in tensors]),
        "flag_counts": {flag: counts[flag] for flag in meanings},
        "flags": meanings,
        "tensors": tensors,
    }


def _median(values: list[float]) -> float | None:
    return median(values) if values else None
