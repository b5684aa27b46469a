"""Summarise a compressed file or directory.

Size, ratio, codecs and dtypes, layers, what streaming it needs, best and worst compressed tensors. No tensor is decoded."""

import argparse
from typing import Any

from .. import summary
from .arguments import add_json, add_source
from .outcome import Exit
from .printer import emit, mebibytes, n_bytes, percent, table


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, ".bs file, or compressed directory")
    add_json(parser)


def run(args: argparse.Namespace) -> Exit:
    facts = summary.info(args.src)
    emit(facts, _lines(facts), as_json=args.json)
    return Exit.DONE


def _lines(facts: dict[str, Any]) -> list[str]:
    def sized(key: str) -> str:
        return f"{n_bytes(facts[key])} ({mebibytes(facts[key])})"

    values = {
        "format": facts["format"],
        "mode": facts["mode"],
        "container_version": str(facts["version"]),
        "file_count": f"{facts['file_count']:,}",
        "tensor_count": f"{facts['tensor_count']:,}",
        "file_size": sized("file_size"),
        "raw_bytes": sized("raw_bytes"),
        "source_bytes": sized("source_bytes"),
        "overall ratio_pct": percent(facts["ratio_pct"]),
        "layer_count": f"{facts['layer_count']:,}",
        "largest_layer_raw_bytes": sized("largest_layer_raw_bytes"),
        "non_layer_raw_bytes": sized("non_layer_raw_bytes"),
        "streaming_peak_ram_est": mebibytes(facts["streaming_peak_ram_bytes"]),
    }
    lines = [f"BigSmall container: {facts['path']}", *(f"  {key:<26} {value}" for key, value in values.items())]
    for heading, key in (("codec_breakdown", "codecs"), ("dtype_breakdown", "dtypes")):
        lines += [f"  {heading}", *_indented(_totals(facts[key]))]
    for heading, key in (("best compressed", "best"), ("worst compressed", "worst")):
        rows = [(row["name"], row["dtype"], row["codec"], percent(row["ratio_pct"])) for row in facts[key]]
        lines += [f"  {heading}", *_indented(table(("name", "dtype", "codec", "ratio"), rows, left=3))]
    return lines


def _totals(totals: dict[str, dict[str, Any]]) -> list[str]:
    rows = [
        (name, f"{total['tensor_count']:,}", f"{total['raw_bytes']:,}", f"{total['compressed_bytes']:,}", percent(total["ratio_pct"]))
        for name, total in totals.items()
    ]
    return table(("", "tensors", "raw bytes", "compressed", "ratio"), rows)


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
