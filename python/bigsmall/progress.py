"""A progress bar on stderr."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias

Progress: TypeAlias = Callable[[int, int], object]
"""Called with (raw bytes done, raw bytes in all), at most some ten times a second, from the calling thread."""

ProgressOption: TypeAlias = bool | Progress | None
"""None or False: nothing. True: a bar on stderr if that is a terminal. Or a function to report to."""


@contextmanager
def reporting(progress: ProgressOption, label: str) -> Iterator[Progress | None]:
    """The function to report to, and the bar behind it, which is wiped off at the end."""
    if progress is None or isinstance(progress, bool):
        # There is no stderr at all in a process without a console, or where the shell has closed it.
        if not progress or sys.stderr is None or not sys.stderr.isatty():
            yield None
            return
        bar = _bar(label)
        try:
            yield bar.report
        finally:
            bar.close()
    else:
        yield progress


def _bar(label: str) -> "TqdmBar | PlainBar":
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        return PlainBar(label)
    return TqdmBar(tqdm, label)


class TqdmBar:
    """Drawn by tqdm, with its own environment variables and notebooks."""

    def __init__(self, tqdm: Callable[..., Any], label: str) -> None:
        self._bar = tqdm(desc=label, total=0, unit="B", unit_scale=True, leave=False, file=sys.stderr)

    def report(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()


class PlainBar:
    """One line of text, drawn over itself."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._started = time.monotonic()
        self._width = 0

    def report(self, done: int, total: int) -> None:
        share = done / total if total else 1.0
        rate = done / 1e6 / max(time.monotonic() - self._started, 1e-3)
        line = f"{self._label}: {share:4.0%}  {done / 1e6:,.0f}/{total / 1e6:,.0f} MB  {rate:,.0f} MB/s"
        sys.stderr.write("\r" + line.ljust(self._width))
        sys.stderr.flush()
        self._width = len(line)

    def close(self) -> None:
        sys.stderr.write("\r" + " " * self._width + "\r")
        sys.stderr.flush()
