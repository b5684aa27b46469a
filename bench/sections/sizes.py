"""Sizes of whole files in the modes for keeping, beside the published package's."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import child
import environment
import inputs
import rivals
from checkpoint import Checkpoint
from rivals import published

if TYPE_CHECKING:
    from results import Facts
    from run import Run

MODES = ("balanced", "storage")

PUBLISHED_SIZES = inputs.SHARED_WEIGHTS / "published-4.0.0-sizes.json"


class Aim(NamedTuple):
    """Percent of the raw file to reach."""

    balanced: float
    storage: float


AIMS = {
    "normal": Aim(65.55, 65.50),
    "minilm-bf16": Aim(65.75, 65.50),
    "minilm-f16": Aim(84.6, 84.4),
    "minilm-f32": Aim(81.8, 81.5),
    "minilm-e4m3": Aim(75.7, 75.4),
    "taef2_decoder_f16": Aim(85.5, 84.5),
    "taesana_encoder_f16": Aim(85.5, 84.5),
    "realcugan_pro_up3x-conservative_f16": Aim(85.5, 84.5),
    "realcugan_pro_up3x-no-denoise_f16": Aim(85.5, 84.5),
    "realcugan_se_up2x-conservative_f16": Aim(85.5, 84.5),
    "realcugan_se_up2x-no-denoise_f16": Aim(85.5, 84.5),
    "retsim_v1_bf16": Aim(67.0, 66.5),
    "aesthetic_sac_linear_bf16": Aim(66.3, 66.0),
    "lora_roberta_agnews_step1000_bf16": Aim(67.5, 67.0),
    "lora_roberta_agnews_step1200_bf16": Aim(67.5, 67.0),
}


class Row(NamedTuple):
    """One file. Sizes are bytes; a mode or the published package that failed has no entry or None."""

    label: str
    raw_bytes: int
    published_bytes: int | None
    bytes: dict[str, int]
    aim: Aim | None


class Sizes(NamedTuple):
    """`models` are the inputs of the speed tables, `files` the checkpoints beside the repository."""

    models: list[Row]
    files: list[Row]


def measure(run: Run) -> Sizes:
    models = []
    for kind in run.kinds:
        path = run.inputs.path(kind)
        known = run.results.once(f"sizes/{kind.key}/published", pack_in_environment, path, run.scratch).get("bytes")
        models.append(Row(kind.label, path.stat().st_size, known, our_sizes(run, kind.key, path), AIMS[kind.key]))

    published_sizes = json.loads(PUBLISHED_SIZES.read_text()) if PUBLISHED_SIZES.exists() else {}
    files = []
    for path in inputs.shared_weights()[:: 6 if run.quick else 1]:
        known = published_sizes.get(path.name, {}).get("published_bytes")
        files.append(Row(path.stem, path.stat().st_size, known, our_sizes(run, path.stem, path), AIMS.get(path.stem)))
    return Sizes(models, files)


def total(rows: list[Row]) -> Row:
    """The sums of those that the published package can compress."""
    both = [row for row in rows if row.published_bytes is not None]
    return Row(
        f"all {len(both)} that it can compress",
        sum(row.raw_bytes for row in both),
        sum(row.published_bytes or 0 for row in both),
        {mode: sum(row.bytes[mode] for row in both) for mode in MODES if all(mode in row.bytes for row in both)},
        None,
    )


def our_sizes(run: Run, key: str, path: Path) -> dict[str, int]:
    sizes = {}
    for mode in MODES:
        facts = run.results.once(f"sizes/{key}/{mode}", child.call, "sections.sizes:pack", {"path": str(path), "mode": mode})
        if "error" not in facts:
            sizes[mode] = facts["bytes"]
    return sizes


def pack_in_environment(path: Path, scratch: Path) -> Facts:
    python = environment.interpreter(published.RIVAL.name, published.RIVAL.requirements)
    return child.call("sections.sizes:pack_published", {"path": str(path), "scratch": str(scratch)}, python)


def pack(path: str, mode: str) -> Facts:
    """The size of the `.bs` file; the restored file is compared with the source."""
    import bigsmall

    source = Path(path).read_bytes()
    packed = bigsmall._core.compress_bytes(source, mode=mode)
    if bigsmall._core.decompress_bytes(packed) != source:
        raise ValueError(f"{path} does not come back")
    return {"bytes": len(packed)}


def pack_published(path: str, scratch: str) -> Facts:
    """The size of the published package's file."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        codec = rivals.open_codec(published.RIVAL.name, published.RIVAL.settings[0].label, Checkpoint(Path(path)), Path(directory))
        return {"bytes": codec.size(codec.encode(codec.source()))}
