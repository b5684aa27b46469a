"""What `import bigsmall` costs."""

from __future__ import annotations

import re
import statistics
import subprocess
import sys
from typing import TYPE_CHECKING, NamedTuple

import environment
from child import ChildError
from rivals import published

if TYPE_CHECKING:
    from results import Facts
    from run import Run

RUNS = 15

AIM_S = 0.060


class Row(NamedTuple):
    """`facts` has `best_s` and `median_s`; `aim_s` is for the median."""

    label: str
    facts: Facts
    aim_s: float | None = None


def measure(run: Run) -> list[Row]:
    return [
        Row("bigsmall", run.results.once("startup/bigsmall", clock, sys.executable), AIM_S),
        Row(published.RIVAL.settings[0].label, run.results.once("startup/published", clock_published)),
    ]


def clock_published() -> Facts:
    return clock(environment.interpreter(published.RIVAL.name, published.RIVAL.requirements))


def clock(python: str) -> Facts:
    """What the interpreter itself says of the import, in fresh processes."""
    times = [import_seconds(python) for _ in range(RUNS)]
    return {"best_s": min(times), "median_s": statistics.median(times), "runs": RUNS}


def import_seconds(python: str) -> float:
    # Otherwise the published package asks the package index for its newest version.
    environ = {"BIGSMALL_DISABLE_VERSION_CHECK": "1"}
    command = [python, "-X", "importtime", "-c", "import bigsmall"]
    report = subprocess.run(command, env=environ, capture_output=True, text=True).stderr
    found = re.search(r"\|\s*(\d+) \| bigsmall$", report, re.MULTILINE)
    if found is None:
        raise ChildError((report.strip().splitlines() or ["nothing was imported"])[-1])
    return int(found[1]) / 1e6
