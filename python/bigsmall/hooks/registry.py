"""The packages that are hooked, and the switch for all of them."""

import importlib.metadata
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import NamedTuple

from ..errors import FrameworkError
from . import diffusers, safetensors, transformers
from .patches import Patches
from .post_import import PostImport


class Hook(NamedTuple):
    """What is done to a module once it has been imported."""

    package: str
    first: tuple[int, int]
    """The oldest version whose functions are known."""
    end: tuple[int, int]
    """The first version whose functions may be others."""
    module: str
    apply: Callable[[ModuleType, Patches], None]


HOOKS = (
    Hook("safetensors", (0, 4), (1, 0), "safetensors.torch", safetensors.apply),
    Hook("transformers", (5, 0), (6, 0), "transformers.modeling_utils", transformers.apply),
    Hook("transformers", (5, 0), (6, 0), "transformers.modeling_layers", transformers.apply_to_layers),
    Hook("diffusers", (0, 36), (1, 0), "diffusers.models.modeling_utils", diffusers.apply),
    Hook("diffusers", (0, 36), (1, 0), "diffusers.pipelines.pipeline_loading_utils", diffusers.apply_to_pipelines),
)

WITHOUT_HOOK = (
    "Without a hook: bigsmall.load_model(path) makes a transformers model, bigsmall.from_pretrained(path) a state dict, and "
    "bigsmall.decompress(path, folder) the original files."
)

_lock = threading.RLock()
_post_import = PostImport()
_applied: dict[str, Patches] = {}
_is_installed = False
_n_borrowers = 0


def install() -> None:
    """See `bigsmall.install_hook`."""
    global _is_installed
    with _lock:
        _wait_for_imports()
        _is_installed = True
    try:
        _catch_up()
    except BaseException:
        uninstall()
        raise


def uninstall() -> None:
    """See `bigsmall.uninstall_hook`."""
    global _is_installed
    with _lock:
        _is_installed = False
        _remove_unless_wanted()


@contextmanager
def hooked() -> Iterator[None]:
    """The hook for the time of a call, whether it is installed otherwise or not."""
    global _n_borrowers
    with _lock:
        _wait_for_imports()
        _n_borrowers += 1
    try:
        _catch_up()
        yield
    finally:
        with _lock:
            _n_borrowers -= 1
            _remove_unless_wanted()


def _is_wanted() -> bool:
    return _is_installed or _n_borrowers > 0


def _wait_for_imports() -> None:
    if not _is_wanted():
        for hook in HOOKS:
            _check_version(hook)
        for hook in HOOKS:
            _post_import.add(hook.module, lambda module, hook=hook: _apply(hook, module))  # type: ignore[misc]


def _catch_up() -> None:
    """Hook what has been imported already. Not under the lock: another thread, which imports a module, may wait for that."""
    for hook in HOOKS:
        _post_import.catch_up(hook.module)


def _remove_unless_wanted() -> None:
    if not _is_wanted():
        _post_import.clear()
        for patches in _applied.values():
            patches.undo()
        _applied.clear()


def _apply(hook: Hook, module: ModuleType) -> None:
    with _lock:
        if hook.module in _applied or not _is_wanted():
            return
        patches = Patches()
        try:
            hook.apply(module, patches)
        except FrameworkError as error:
            patches.undo()
            raise FrameworkError(f"{_named(hook)} cannot be hooked: {error}. {WITHOUT_HOOK}") from error
        _applied[hook.module] = patches


def _check_version(hook: Hook) -> None:
    version = _version(hook.package)
    number = None if version is None else re.match(r"(\d+)\.(\d+)", version)
    if number is not None and not hook.first <= (int(number[1]), int(number[2])) < hook.end:
        first, end = (".".join(map(str, bound)) for bound in (hook.first, hook.end))
        raise FrameworkError(f"{_named(hook)} cannot be hooked: this release knows {first} and later, below {end}. {WITHOUT_HOOK}")


def _named(hook: Hook) -> str:
    return f"{hook.package} {_version(hook.package) or ''}".strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
