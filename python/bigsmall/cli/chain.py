"""Keep the checkpoints of a training run as patches to each other.

append adds a checkpoint, list shows the steps, restore writes one of them again, byte for byte."""

import argparse
import errno
from pathlib import Path

from ..chain import MANIFEST, Chain
from ..summary import ratio_pct
from .arguments import add_json, add_mode, add_progress, add_threads
from .outcome import Exit
from .printer import emit, n_bytes, percent, table


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    append = verbs.add_parser("append", help="add a checkpoint as the newest step")
    append.add_argument("directory", metavar="CHAIN", type=Path, help="directory of the chain; made if it is not there")
    append.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="safetensors file")
    append.add_argument("--name", help="what the step is called; default: the file's name without its suffix")
    add_mode(append)
    steps = verbs.add_parser("list", help="show the steps")
    steps.add_argument("directory", metavar="CHAIN", type=Path, help="directory of the chain")
    restore = verbs.add_parser("restore", help="write the checkpoint of a step")
    restore.add_argument("directory", metavar="CHAIN", type=Path, help="directory of the chain")
    restore.add_argument("name", metavar="STEP", help="the step")
    restore.add_argument("-o", "--output", metavar="OUT", type=Path, help="the checkpoint; default: STEP.safetensors")
    restore.add_argument("--force", action="store_true", help="replace an existing output")
    for verb in (append, restore):
        add_threads(verb)
        add_progress(verb)
    for verb in (append, steps, restore):
        add_json(verb)


def run(args: argparse.Namespace) -> Exit:
    if args.verb != "append" and not args.directory.is_file() and not (args.directory / MANIFEST).is_file():
        raise FileNotFoundError(errno.ENOENT, "there is no chain of checkpoints", str(args.directory))
    chain = Chain(args.directory)
    if args.verb == "append":
        step = chain.append(args.checkpoint, args.name, mode=args.mode, threads=args.threads, progress=args.progress)
        share = percent(ratio_pct(step["compressed_bytes"], step["source_bytes"]))
        kind = "key step" if step["key"] is None else f"patch to {step['key']}"
        emit(step, [f"appended {step['name']}: {n_bytes(step['compressed_bytes'])} ({share}, {kind})"], as_json=args.json)
    elif args.verb == "list":
        steps = chain.steps()
        source_bytes, compressed_bytes = (sum(step[key] for step in steps) for key in ("source_bytes", "compressed_bytes"))
        rows = [
            (
                step["name"],
                step["key"] or "-",
                f"{step['source_bytes']:,}",
                f"{step['compressed_bytes']:,}",
                percent(ratio_pct(step["compressed_bytes"], step["source_bytes"])),
            )
            for step in steps
        ]
        rows.append(("all", "", f"{source_bytes:,}", f"{compressed_bytes:,}", percent(ratio_pct(compressed_bytes, source_bytes))))
        facts = {"steps": steps, "source_bytes": source_bytes, "compressed_bytes": compressed_bytes}
        emit(facts, table(("step", "patch to", "source bytes", "compressed", "ratio"), rows, left=2), as_json=args.json)
    else:
        out = Path(f"{args.name}.safetensors") if args.output is None else args.output
        facts = chain.restore(args.name, out, force=args.force, threads=args.threads, progress=args.progress)
        facts |= {"step": args.name, "output": str(out)}
        emit(facts, [f"restored {args.name} -> {out}  ({n_bytes(facts['source_bytes'])}, md5 of each tensor checked)"], as_json=args.json)
    return Exit.DONE
