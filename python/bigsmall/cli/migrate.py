"""Rewrite what the published Python package wrote in today's format, in its place.

Every tensor is checked against the md5 of the original, and the new file is read back, before the old one is touched. That one is kept with
.bak behind its name."""

import argparse

from .. import FORMAT_VERSION, files
from ..summary import ratio_pct
from .arguments import add_json, add_mode, add_progress, add_source, add_threads
from .outcome import Exit
from .printer import emit


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, ".bs file, or compressed directory")
    parser.add_argument("--dry-run", action="store_true", help="do all but the replacing, and tell what it would save")
    parser.add_argument("--no-backup", dest="backup", action="store_false", help="do not keep the original")
    parser.add_argument("--force", action="store_true", help="replace an earlier backup")
    add_mode(parser)
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    facts = files.migrate(
        args.src,
        mode=args.mode,
        dry_run=args.dry_run,
        backup=args.backup,
        force=args.force,
        threads=args.threads,
        progress=args.progress,
    )
    before, after = facts["bytes_before"], facts["bytes_after"]
    remains = ratio_pct(after, before)
    savings_pct = None if remains is None else 100 - remains
    n_migrated = sum(change["n_tensors"] for change in facts["recoded"])
    facts |= {
        "source": str(args.src),
        "dry_run": args.dry_run,
        "n_migrated": n_migrated,
        "saved_bytes": before - after,
        "savings_pct": savings_pct,
        "format_version": FORMAT_VERSION,
    }
    rows = {
        "tensors_total": f"{facts['n_tensors']:,}",
        "tensors_migrated": f"{n_migrated:,}",
        "bytes_before": f"{before:,}",
        "bytes_after": f"{after:,}",
        "savings_pct": "-" if savings_pct is None else f"{savings_pct:.3f}%",
        "format_version": str(FORMAT_VERSION),
    }
    if facts["backup"] is not None:
        rows["backup"] = facts["backup"]
    lines = [f"migrate{' (dry-run)' if args.dry_run else ''}: {args.src}"]
    lines += [f"  {name:<22} {value}" for name, value in rows.items()]
    if facts["recoded"]:
        lines.append("  codec_changes")
        lines += [f"    {change['before'] + '->' + change['after']:<32} {change['n_tensors']:,}" for change in facts["recoded"]]
    if facts["was_current"]:
        lines = [f"migrate: {args.src} is in today's format already ({facts['n_tensors']:,} tensors, container version {FORMAT_VERSION})"]
    emit(facts, lines, as_json=args.json)
    return Exit.DONE
