"""List your compressed models on the Hub, and what of local ones is not there yet."""

import argparse
from pathlib import Path
from typing import Any

from ..hub.status import compare, here, on_hub
from .arguments import add_json
from .outcome import CommandError, Exit, line_of
from .printer import emit, n_bytes, table


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--user", metavar="USER", help="whose repositories; default: the token's")
    parser.add_argument("--suffix", metavar="SUFFIX", default="-bigsmall", help="what their names end in; default: -bigsmall")
    parser.add_argument("--token", metavar="TOKEN", help="of the Hub; default: the one that is logged in")
    parser.add_argument(
        "--local-dirs", metavar="DIR", nargs="*", type=Path, default=[], help="directories with compressed models to compare"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> Exit:
    models = here(args.local_dirs)
    repositories: list[dict[str, Any]] = []
    problem = None
    try:
        repositories = on_hub(args.user, args.suffix, token=args.token)
    except OSError as error:
        # What is here can be told all the same.
        problem = line_of(error)
    compare(models, repositories, args.suffix)
    facts = {"repositories": repositories, "local": models, "hub_error": problem}
    emit(facts, _lines(facts), as_json=args.json)
    if problem is not None:
        raise CommandError(problem)
    return Exit.DONE


def _lines(facts: dict[str, Any]) -> list[str]:
    repositories = [
        (one["repo_id"], f"{one['n_shards']:,}", n_bytes(one["n_bytes"]), "yes" if one["has_readme"] else "no")
        for one in facts["repositories"]
    ]
    local = [
        (
            one["path"],
            one["repo_id"] or "-",
            f"{one['n_shards']:,}",
            n_bytes(one["n_bytes"]),
            one["problem"] or f"{len(one['to_upload']):,}",
        )
        for one in facts["local"]
    ]
    lines = table(("repository", "shards", "size", "README"), repositories)
    if local:
        lines += ["", *table(("directory", "repository", "shards", "size", "to upload"), local, left=2)]
    return lines
