"""Time taken by calls."""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

Source = TypeVar("Source")
Result = TypeVar("Result")

LEAST_RUNS = 3
MOST_RUNS = 12
ENOUGH_S = 1.2
"""No further run begins after this long, once there are `LEAST_RUNS`."""
TOO_LONG_S = 10.0
"""No further run begins after this long."""


class Timing(NamedTuple, Generic[Result]):
    """The shortest of `runs` runs, and what the last returned."""

    seconds: float
    runs: int
    result: Result


def fastest(call: Callable[[Source], Result], source: Callable[[], Source]) -> Timing[Result]:
    """The best of as many runs as fit into a few seconds. `source` makes what each is given, and is not timed."""
    times: list[float] = []
    while True:
        argument = source()
        start = time.perf_counter()
        result = call(argument)
        times.append(time.perf_counter() - start)
        del argument
        if len(times) == MOST_RUNS or sum(times) > (ENOUGH_S if len(times) >= LEAST_RUNS else TOO_LONG_S):
            return Timing(min(times), len(times), result)
        # Its memory is the next run's.
        del result


def in_fork(call: Callable[[], object]) -> float:
    """Seconds that one call takes in a fork of this process, where no memory that the call takes was used before."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            start = time.perf_counter()
            result = call()
            os.write(write_end, struct.pack("d", time.perf_counter() - start))
            del result
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status != 0:
        raise RuntimeError(f"the forked call failed with status {status}")
    (seconds,) = struct.unpack("d", answer)
    return float(seconds)
