"""Measurements kept as JSON, so that an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from child import ChildError
from environment import InstallError

if TYPE_CHECKING:
    from collections.abc import Callable

Facts = dict[str, Any]


class Results:
    """The measurements of one build of bigsmall, one file each."""

    def __init__(self, directory: Path, fresh: bool) -> None:
        self.directory = directory
        if fresh:
            shutil.rmtree(directory, ignore_errors=True)

    def once(self, key: str, measure: Callable[..., Facts], *arguments: object) -> Facts:
        """What is known under `key`; if nothing is, `measure(*arguments)`. One that fails gives `error` and is tried again next time."""
        path = self.directory / f"{re.sub('[^a-zA-Z0-9_./-]+', '-', key)}.json"
        if path.exists():
            return dict(json.loads(path.read_text()))
        print(f"measuring {key}", file=sys.stderr)
        try:
            facts = measure(*arguments)
        except (ChildError, InstallError, OSError) as error:
            print(f"  failed: {error}", file=sys.stderr)
            return {"error": str(error)}
        path.parent.mkdir(parents=True, exist_ok=True)
        made = path.with_suffix(".making")
        made.write_text(json.dumps(facts, indent=1))
        made.rename(path)
        return facts


def build_id() -> str:
    """Names the installed bigsmall by its code."""
    spec = importlib.util.find_spec("bigsmall")
    if spec is None or spec.origin is None:
        raise SystemExit("bigsmall is not installed for this Python: maturin develop --release")
    digest = hashlib.sha256()
    for path in sorted(Path(spec.origin).parent.rglob("*")):
        if path.suffix in (".py", ".so", ".pyd"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
