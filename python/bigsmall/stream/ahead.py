"""Work done before it is asked for."""

from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")


class Ahead(Generic[Key, Result]):
    """Results of a function, made for the keys that are expected next by one thread while the caller does something else.

    What was not expected, or has not been begun, is made by the caller itself: it waits for nothing but what it needs.

    Args:
        make: the function.
        depth: how many results there may be before they are asked for; 0 makes all of them by the caller.
        drop: is given each result that turns out not to be needed.
    """

    def __init__(self, make: Callable[[Key], Result], depth: int, drop: Callable[[Result], object] = lambda result: None) -> None:
        self._make = make
        self._depth = depth
        self._drop = drop
        self._begun: dict[Key, Future[Result]] = {}
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="bigsmall-ahead") if depth > 0 else None

    def take(self, key: Key) -> Result:
        """The result for a key. Raises what the function raised for it."""
        begun = self._begun.pop(key, None)
        if begun is None or begun.cancel():
            return self._make(key)
        return begun.result()

    def expect(self, keys: Sequence[Key]) -> None:
        """Have the first `depth` of these keys made ahead, and drop what was made for others."""
        if self._thread is None:
            return
        keys = keys[: self._depth]
        for key in [key for key in self._begun if key not in keys]:
            self._give_up(self._begun.pop(key))
        for key in keys:
            if key not in self._begun:
                self._begun[key] = self._thread.submit(self._make, key)

    def close(self) -> None:
        """Drop what was made ahead and end the thread."""
        for begun in self._begun.values():
            self._give_up(begun)
        self._begun.clear()
        if self._thread is not None:
            self._thread.shutdown()

    def _give_up(self, begun: "Future[Result]") -> None:
        if not begun.cancel():
            begun.add_done_callback(lambda done: None if done.exception() else self._drop(done.result()))
