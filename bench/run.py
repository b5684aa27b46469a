#!/usr/bin/env python3
"""Measure bigsmall beside its rivals and write the tables and the plot of docs/benchmarks.md.

Needs a release build of bigsmall, numpy, safetensors and torch in the Python that runs it. Rivals get environments of their own
under bench/, inputs and results stay under bench/results/. An interrupted run goes on where it stopped, as long as the build of
bigsmall is the same.

    python bench/run.py                    # all of it: about 20 minutes, 8 GiB of free disk, 8 GiB of memory
    python bench/run.py --only sizes       # one section
    python bench/run.py --quick            # small inputs

A run with --quick, --only or --inputs writes its page under bench/results/ and leaves docs/ as it is: all figures there are of one build.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import inputs
import machine
import plot
import report
import tables
from child import ChildError
from environment import InstallError
from inputs import Inputs, Kind
from results import Results, build_id
from sections import codec, comparison, delta, load, memory, published, sizes, speed, startup, stream

BENCH = Path(__file__).resolve().parent
PAGE = BENCH.parent / "docs" / "benchmarks.md"
PLOT = Path("img", "decode-speed-against-size.png")

SECTIONS = ("sizes", "speed", "delta", "load", "published", "memory", "stream", "startup", "comparison")


@dataclass(frozen=True)
class Run:
    """What the sections need to know; files that do not stay go under `scratch`."""

    quick: bool
    kinds: tuple[Kind, ...]
    inputs: Inputs
    results: Results
    scratch: Path


def main() -> None:
    arguments = parser().parse_args()
    kinds = tuple(kind for kind in (inputs.QUICK_KINDS if arguments.quick else inputs.KINDS) if kind.key in arguments.inputs)
    results_dir = BENCH / "results"
    scratch = arguments.scratch or results_dir / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    build = build_id() + ("-quick" if arguments.quick else "")
    run = Run(
        arguments.quick, kinds, Inputs(results_dir / "inputs", arguments.quick), Results(results_dir / build, arguments.fresh), scratch
    )
    write(run, arguments.only or list(SECTIONS))


def write(run: Run, sections: list[str]) -> None:
    """Measure the sections and put them into the page."""
    is_whole = run.kinds == inputs.KINDS and set(sections) == set(SECTIONS)
    page = PAGE if is_whole else BENCH / "results" / "partial" / PAGE.name
    parts = {"machine": tables.machine(machine.describe())}
    if "sizes" in sections:
        measured = sizes.measure(run)
        parts["sizes of models"] = tables.size_table(measured.models)
        files = measured.files
        parts["sizes of files"] = tables.size_table(files, sizes.total(files)) if files else "The files are not beside the repository."
    if "speed" in sections:
        codec_rows, speed_rows = codec.measure(run), speed.measure(run)
        parts["codec"] = tables.codec_table(codec_rows)
        parts["speed"] = tables.speed_tables(speed_rows)
        try:
            plot.draw(page.parent / PLOT, codec_rows, speed_rows)
        except (ChildError, InstallError) as error:
            print(f"no plot: {error}", file=sys.stderr)
    if "delta" in sections:
        deltas = delta.measure(run)
        parts["updates"] = tables.update_table(deltas.updates)
        parts["pairs"] = tables.pair_table(deltas.pairs)
    if "load" in sections:
        parts["load"] = tables.load_tables(load.measure(run))
    if "published" in sections:
        parts["published"] = tables.published_table(published.measure(run))
    if "memory" in sections:
        parts["memory"] = tables.memory_table(memory.measure(run))
    if "stream" in sections:
        parts["stream"] = tables.stream_table(stream.measure(run))
    if "startup" in sections:
        parts["startup"] = tables.startup_table(startup.measure(run))
    page.parent.mkdir(parents=True, exist_ok=True)
    text = report.fill(PAGE.read_text(), parts)
    if "comparison" in sections:
        text = report.fill(text, {"comparison": tables.comparison_table(comparison.measure(run), text)})
    page.write_text(text)
    print(page)


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small inputs and few of them")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="measure this section; may be given more than once")
    parser.add_argument(
        "--inputs",
        type=lambda text: text.split(","),
        default=[kind.key for kind in inputs.KINDS],
        metavar="KEYS",
        help=f"of the size and speed sections, separated by commas: {', '.join(kind.key for kind in inputs.KINDS)}",
    )
    parser.add_argument("--fresh", action="store_true", help="forget what was measured of this build")
    parser.add_argument("--scratch", type=Path, help="where large files are made and deleted (default: bench/results/scratch)")
    return parser


if __name__ == "__main__":
    main()
