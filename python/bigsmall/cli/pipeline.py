"""Bring a model to the Hub in compressed form: download, compress, upload.

May be interrupted anywhere: run again, it goes on where it stopped. What is done is written to a checkpoint file beside the output."""

import argparse
from pathlib import Path

from ..hub.pipeline import STAGES, Checkpoint, OtherCheckpointError, run_pipeline
from .arguments import add_json, add_mode, add_progress, add_threads
from .outcome import CommandError, Exit
from .printer import emit, n_bytes, note


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    run_parser = actions.add_parser("run", help="do what is left to do", allow_abbrev=False)
    run_parser.add_argument("source", metavar="SOURCE", help="model directory, or Hub repository")
    run_parser.add_argument("dst", metavar="DST", type=Path, help="directory of the compressed model")
    run_parser.add_argument("--repo-id", metavar="REPO", help="repository to upload to; without it nothing is uploaded")
    run_parser.add_argument("--no-upload", dest="uploads", action="store_false", help="leave the upload out")
    run_parser.add_argument("--no-compress", dest="compresses", action="store_false", help="only upload what DST holds")
    run_parser.add_argument("--lfs", action="store_true", help="upload file by file, each in a commit of its own")
    run_parser.add_argument("--private", action="store_true", help="make a new repository private")
    run_parser.add_argument("--revision", metavar="REV", help="branch, tag or commit of the source")
    run_parser.add_argument("--token", metavar="TOKEN", help="of the Hub; default: the one that is logged in")
    run_parser.add_argument("--force", action="store_true", help="begin anew, and replace DST")
    add_mode(run_parser)
    add_threads(run_parser)
    add_json(run_parser)
    add_progress(run_parser)
    status_parser = actions.add_parser("status", help="tell what is done", allow_abbrev=False)
    status_parser.add_argument("dst", metavar="DST", type=Path, help="directory of the compressed model")
    add_json(status_parser)


def run(args: argparse.Namespace) -> Exit:
    return _status(args) if args.action == "status" else _run(args)


def _run(args: argparse.Namespace) -> Exit:
    try:
        facts = run_pipeline(
            args.source,
            args.dst,
            repo_id=args.repo_id,
            mode=args.mode,
            compresses=args.compresses,
            uploads=args.uploads,
            lfs=args.lfs,
            private=args.private,
            restart=args.force,
            token=args.token,
            revision=args.revision,
            threads=args.threads,
            progress=args.progress,
            say=note,
        )
    except OtherCheckpointError as error:
        raise CommandError(f"{error.args[0]} (--force begins anew)", Exit.USAGE) from error
    emit(facts, _lines(args.dst, Checkpoint(**facts)), as_json=args.json)
    return Exit.DONE


def _status(args: argparse.Namespace) -> Exit:
    checkpoint = Checkpoint.read(args.dst)
    if checkpoint is None:
        raise CommandError(f"{Checkpoint.path_of(args.dst)}: there is no checkpoint: no pipeline has been run for this directory")
    emit(vars(checkpoint), _lines(args.dst, checkpoint), as_json=args.json)
    return Exit.DONE


def _lines(dst: Path, checkpoint: Checkpoint) -> list[str]:
    source = checkpoint.source
    lines = [f"pipeline: {source.get('repo_id') or source.get('path')} -> {dst}"]
    for stage in STAGES:
        facts = checkpoint.done.get(stage)
        if facts is not None:
            files = facts["files"]
            lines.append(
                f"  {stage}: done, {len(files):,} files, {n_bytes(sum(files.values()))}" + (f", {facts['url']}" if "url" in facts else "")
            )
        elif stage == "download" and "repo_id" not in source:
            lines.append("  download: not needed")
        elif stage == "upload" and checkpoint.repo_id is None:
            lines.append("  upload: no repository named")
        else:
            lines.append(f"  {stage}: not done")
    return lines
