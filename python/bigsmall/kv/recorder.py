"""Where the time of coding goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Recorder:
    """Seconds by stage. The device is waited for at both ends of a stage, so that its work is counted where it was asked for."""

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        self._wait()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.seconds[name] += time.perf_counter() - start

    def total(self) -> float:
        return sum(self.seconds.values())

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


class NoRecorder(Recorder):
    """Measures nothing, and waits for nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        yield
