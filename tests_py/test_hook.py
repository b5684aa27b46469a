"""Installing the hook and taking it out again."""

import importlib
import subprocess
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bigsmall
from bigsmall.hooks import registry
from bigsmall.hooks.patches import Parameters, Patches
from bigsmall.hooks.post_import import PostImport

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture(autouse=True)
def no_hook() -> Iterator[None]:
    yield
    bigsmall.uninstall_hook()


def functions() -> list[Any]:
    """Everything that the hook replaces, as it stands."""
    pytest.importorskip("torch")
    safetensors, transformers = importlib.import_module("safetensors.torch"), pytest.importorskip("transformers.modeling_utils")
    return [
        safetensors.load_file,
        transformers._get_resolved_checkpoint_files,
        transformers.load_state_dict,
        transformers.PreTrainedModel.__dict__["_load_pretrained_model"],
        importlib.import_module("transformers.modeling_layers").__dict__.get("safe_open"),
    ]


def test_installing_twice_and_taking_out_twice() -> None:
    before = functions()
    bigsmall.install_hook()
    hooked = functions()
    assert all(new is not old for new, old in zip(hooked, before, strict=True) if old is not None)
    bigsmall.install_hook()
    assert functions() == hooked
    bigsmall.uninstall_hook()
    bigsmall.uninstall_hook()
    assert all(new is old for new, old in zip(functions(), before, strict=True))
    assert not any(isinstance(finder, PostImport) for finder in sys.meta_path)


def test_names_that_others_have_imported_change_with_the_function() -> None:
    original = functions()[0]
    other = types.ModuleType("another_module")
    other.read_weights = original  # type: ignore[attr-defined]
    sys.modules["another_module"] = other
    try:
        bigsmall.install_hook()
        assert other.read_weights is functions()[0] is not original
        bigsmall.uninstall_hook()
        assert other.read_weights is original
    finally:
        del sys.modules["another_module"]


def test_a_function_that_someone_else_has_replaced_since_is_theirs() -> None:
    modeling = pytest.importorskip("transformers.modeling_utils")
    original = modeling.PreTrainedModel.__dict__["_load_pretrained_model"]
    bigsmall.install_hook()
    ours = modeling.PreTrainedModel._load_pretrained_model
    theirs = staticmethod(lambda *args, **kwargs: ours(*args, **kwargs))
    modeling.PreTrainedModel._load_pretrained_model = theirs
    try:
        bigsmall.uninstall_hook()
        assert modeling.PreTrainedModel.__dict__["_load_pretrained_model"] is theirs
        assert registry._applied == {}
    finally:
        modeling.PreTrainedModel._load_pretrained_model = original


def test_threads_may_install_and_take_out_at_once() -> None:
    before = functions()
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(5):
                bigsmall.install_hook()
                bigsmall.uninstall_hook()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert all(new is old for new, old in zip(functions(), before, strict=True))


IMPORTS = """
import sys
import bigsmall
bigsmall.install_hook()
assert not {"torch", "transformers", "safetensors", "diffusers"} & set(sys.modules), "something was imported"
%s
print("done")
"""

WHEN_TAKEN_OUT = "bigsmall.uninstall_hook(); from safetensors.torch import load_file; assert load_file.__module__ == 'safetensors.torch'"
WHEN_IMPORTED = """
import safetensors.torch
assert safetensors.torch.__spec__.loader is safetensors.torch.__loader__
assert type(safetensors.torch.__loader__).__name__ == "SourceFileLoader"
print(len(safetensors.torch.load_file({path!r})))
"""


@pytest.mark.parametrize("case", ["imported", "taken out"])
def test_nothing_is_imported_until_it_is_asked_for(compressed: Path, case: str) -> None:
    pytest.importorskip("torch")
    statements = WHEN_IMPORTED.format(path=str(compressed)) if case == "imported" else WHEN_TAKEN_OUT
    done = subprocess.run([sys.executable, "-c", IMPORTS % statements], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == "done"


@pytest.mark.parametrize(("package", "version"), [("transformers", "4.57.3"), ("transformers", "6.0.0"), ("diffusers", "0.20.1")])
def test_a_version_that_is_not_known(monkeypatch: pytest.MonkeyPatch, package: str, version: str) -> None:
    before = functions()
    installed = registry._version
    monkeypatch.setattr(registry, "_version", lambda name: version if name == package else installed(name))
    with pytest.raises(bigsmall.FrameworkError, match=rf"{package} {version} cannot be hooked.*bigsmall\.load_model"):
        bigsmall.install_hook()
    assert all(new is old for new, old in zip(functions(), before, strict=True))
    assert not any(isinstance(finder, PostImport) for finder in sys.meta_path)


def test_functions_that_are_not_what_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    modeling = pytest.importorskip("transformers.modeling_utils")
    monkeypatch.setattr(modeling, "load_state_dict", lambda file: None)
    before = functions()
    with pytest.raises(bigsmall.FrameworkError, match=r"has no parameter checkpoint_file.*bigsmall\.load_model"):
        bigsmall.install_hook()
    monkeypatch.delattr(modeling, "load_state_dict")
    with pytest.raises(bigsmall.FrameworkError, match=r"has no function load_state_dict.*bigsmall\.load_model"):
        bigsmall.install_hook()
    monkeypatch.undo()
    assert all(new is old for new, old in zip(functions(), [*before[:2], functions()[2], *before[3:]], strict=True))
    bigsmall.install_hook()


def test_a_module_whose_import_fails_is_still_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fails_once.py").write_text("import os\nif 'FAIL' in os.environ: raise ValueError('not now')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("FAIL", "1")
    waiting, seen = PostImport(), []
    waiting.add("fails_once", seen.append)
    try:
        with pytest.raises(ValueError, match="not now"):
            importlib.import_module("fails_once")
        assert seen == []
        monkeypatch.delenv("FAIL")
        module = importlib.import_module("fails_once")
        assert seen == [module]
    finally:
        waiting.clear()
        sys.modules.pop("fails_once", None)


def test_static_and_class_methods_stay_what_they_are() -> None:
    class Owner:
        @staticmethod
        def static(value: int) -> int:
            return value

        @classmethod
        def of_class(cls, value: int) -> tuple[type, int]:
            return cls, value

        def plain(self, value: int) -> int:
            return value

    patches = Patches()
    for name in ("static", "of_class", "plain"):
        patches.method(Owner, name, lambda original: lambda *args: original(*args[:-1], args[-1] + 1))
    assert (Owner.static(1), Owner.of_class(1), Owner().plain(1)) == (2, (Owner, 2), 2)
    with pytest.raises(bigsmall.FrameworkError, match="has no nothing"):
        patches.method(Owner, "nothing", lambda original: original)
    patches.undo()
    assert (Owner.static(1), Owner.of_class(1), Owner().plain(1)) == (1, (Owner, 1), 1)


def test_arguments_by_name() -> None:
    def function(first: int, second: int = 2, **others: int) -> None: ...

    call = Parameters(function, "second").bind((5,), {"third": 3})
    assert call.arguments == {"first": 5, "second": 2, "others": {"third": 3}}
    with pytest.raises(bigsmall.FrameworkError, match="third"):
        Parameters(function, "third")


@pytest.mark.parametrize(
    ("missing", "call", "extra"),
    [
        ("transformers", "load_model", "hf"),
        ("torch", "from_pretrained", "torch"),
        ("huggingface_hub", "from_pretrained", "hf"),
        ("diffusers", "integrations.diffusion.load_pipeline", "diffusion"),
    ],
)
def test_missing_packages_are_named(compressed: Path, missing: str, call: str, extra: str) -> None:
    pytest.importorskip("torch")
    source = "user/model" if missing == "huggingface_hub" else str(compressed)
    script = f"import sys; sys.modules[{missing!r}] = None; import bigsmall.integrations.diffusion; bigsmall.{call}({source!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert f"pip install 'bigsmall[{extra}]'" in done.stderr.splitlines()[-1]
