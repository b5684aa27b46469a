"""Look at a safetensors file or directory before it is compressed.

Estimates the compressed size from samples, and finds F32 tensors that hold only BF16 or F16 values."""

import argparse
from typing import Any

from .. import files
from ..summary import ratio_pct
from .arguments import add_json, add_mode, add_progress, add_source, add_threads
from .outcome import Exit
from .printer import emit, n_bytes, percent, table


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, "safetensors file, or model directory")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    add_mode(parser)
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    facts = files.scan(args.src, mode=args.mode, threads=args.threads, progress=args.progress)
    facts |= {"path": str(args.src), "ratio_pct": ratio_pct(facts["estimated_bytes"], facts["source_bytes"])}
    emit(facts, _lines(facts, each_tensor=args.tensors), as_json=args.json)
    return Exit.DONE


def _lines(facts: dict[str, Any], *, each_tensor: bool) -> list[str]:
    f32 = facts["f32"]
    values = {
        "shards": f"{facts['n_shards']:,}",
        "tensors total": f"{facts['n_tensors']:,}",
        "F32 tensors": f"{f32['n_tensors']:,}",
        "BF16-native F32": f"{f32['n_bf16_native']:,}",
        "F16-native F32": f"{f32['n_f16_native']:,}",
        "BF16-native by bytes": percent(ratio_pct(f32["bf16_native_bytes"], f32["raw_bytes"])),
        "F16-native by bytes": percent(ratio_pct(f32["f16_native_bytes"], f32["raw_bytes"])),
        "source": n_bytes(facts["source_bytes"]),
        "estimated compressed": f"{n_bytes(facts['estimated_bytes'])} ({percent(facts['ratio_pct'])})",
    }
    lines = [f"scan: {facts['path']}", *(f"  {key + ':':<23} {value}" for key, value in values.items())]
    if each_tensor:
        rows = [
            (
                tensor["name"],
                tensor["dtype"],
                tensor["kind"],
                f"{tensor['raw_bytes']:,}",
                f"{tensor['estimated_bytes']:,}",
                percent(ratio_pct(tensor["estimated_bytes"], tensor["raw_bytes"])),
            )
            for tensor in facts["tensors"]
        ]
        lines += ["", *table(("name", "dtype", "kind", "raw bytes", "estimated", "ratio"), rows, left=3)]
    return lines
