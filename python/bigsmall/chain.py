"""Checkpoints of one training run, each kept as a patch to a key step."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from . import files
from .errors import FormatError, OptionError, located
from .files import Facts, Mode, StrPath
from .progress import ProgressOption

MANIFEST = "chain.json"
FORMAT = "bigsmall-chain"
VERSION = 1

LEAST_SAVING = 0.1
"""A step becomes a key of its own when its patch saves less than this part of the key step's size."""


class Chain:
    """A directory of checkpoints, of which any is restored bit for bit from at most two files.

    Steps are patches to a *key* step, which is compressed alone, and not to the step before: a step then takes a little more room, but
    restoring it reads the key and one patch however long the chain is, and no damaged step takes others with it. As training moves away
    from the key, patches grow, and a new key is set.

    >>> chain = bigsmall.Chain("run-bs")
    >>> chain.append("step-1000.safetensors")
    >>> chain.append("step-2000.safetensors")
    >>> chain.restore("step-1000", "back.safetensors")

    Raises:
        FormatError: the directory's `chain.json` is not what it should be.
        OSError: it cannot be read.
    """

    def __init__(self, directory: StrPath) -> None:
        self._directory = Path(directory)
        self._steps = self._read()

    def append(
        self,
        checkpoint: StrPath,
        name: str | None = None,
        *,
        mode: Mode = "balanced",
        threads: int = 0,
        progress: ProgressOption = None,
    ) -> Facts:
        """Add a safetensors file as the newest step.

        Args:
            checkpoint: the file.
            name: what the step is called; by default the file's name without its suffix.
            mode: as in `compress`, for key steps.
            threads: 0 means one per core.
            progress: as in `compress`.

        Returns:
            The step, as `steps` has it.

        Raises:
            OptionError: there is a step of that name, or it is no name of a file.
            SourceError, OSError: as `compress`. The chain is then as it was.
        """
        name = Path(checkpoint).stem if name is None else name
        if not name or Path(name).name != name or name.startswith("."):
            raise OptionError(f"{name!r} is no name of a step")
        if any(step["name"] == name for step in self._steps):
            raise OptionError(f"{os.fspath(self._directory)}: there is a step {name!r} already")
        self._directory.mkdir(parents=True, exist_ok=True)
        key = next((step for step in reversed(self._steps) if step["key"] is None), None)
        target = self._directory / f"{name}.bs"
        # Left by an append that was cut off before the manifest knew of it.
        target.unlink(missing_ok=True)
        facts = None
        if key is not None:
            facts = files.compress(
                checkpoint, target, delta_from=self._directory / key["file"], mode=mode, threads=threads, progress=progress
            )
            if facts["compressed_bytes"] > (1 - LEAST_SAVING) * key["compressed_bytes"]:
                target.unlink()
                facts = None
        if facts is None:
            key = None
            facts = files.compress(checkpoint, target, mode=mode, threads=threads, progress=progress)
        step = {
            "name": name,
            "file": target.name,
            "key": None if key is None else key["name"],
            "source_bytes": facts["source_bytes"],
            "compressed_bytes": facts["compressed_bytes"],
        }
        self._write([*self._steps, step])
        self._steps.append(step)
        return dict(step)

    def steps(self) -> list[Facts]:
        """The steps, oldest first: `name`, `file`, `key` (the step that it is a patch to; None if it stands alone), `source_bytes`,
        `compressed_bytes`."""
        return [dict(step) for step in self._steps]

    def restore(self, name: str, dst: StrPath, *, force: bool = False, threads: int = 0, progress: ProgressOption = None) -> Facts:
        """Write the checkpoint of a step, byte for byte.

        Raises:
            OptionError: there is no such step.
            CorruptError, PatchBaseError, OSError: as `decompress`.
        """
        step = self._named(name)
        base = None if step["key"] is None else self._directory / self._named(step["key"])["file"]
        return files.decompress(self._directory / step["file"], dst, base=base, force=force, threads=threads, progress=progress)

    def _named(self, name: str) -> Facts:
        for step in self._steps:
            if step["name"] == name:
                return step
        raise OptionError(f"{os.fspath(self._directory)}: there is no step {name!r}")

    def _read(self) -> list[Facts]:
        path = self._directory / MANIFEST
        try:
            text = path.read_bytes()
        except FileNotFoundError:
            return []
        try:
            manifest: Any = json.loads(text)
            if (manifest["format"], manifest["version"]) != (FORMAT, VERSION):
                raise ValueError("of another format")
            steps = [_checked(step) for step in manifest["steps"]]
        except (ValueError, KeyError, TypeError) as error:
            raise located(FormatError, f"not a chain of checkpoints: {error}", path=path) from None
        keys = {step["name"] for step in steps if step["key"] is None}
        if len({step["name"] for step in steps}) != len(steps) or any(step["key"] not in {None, *keys} for step in steps):
            raise located(FormatError, "a step occurs twice, or has no key", path=path)
        return steps

    def _write(self, steps: list[Facts]) -> None:
        manifest = {"format": FORMAT, "version": VERSION, "steps": steps}
        with tempfile.NamedTemporaryFile("w", dir=self._directory, prefix=".bigsmall-", delete=False) as file:
            try:
                json.dump(manifest, file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(self._directory / MANIFEST)
            except BaseException:
                Path(file.name).unlink()
                raise


def _checked(step: Any) -> Facts:
    name, file, key = step["name"], step["file"], step["key"]
    if not all(isinstance(text, str) for text in (name, file)) or not isinstance(key, str | None):
        raise ValueError("a step is not what it should be")
    # No path that leads elsewhere.
    if Path(file).name != file:
        raise ValueError(f"{file!r} is no file of the chain")
    sizes = {size: step[size] for size in ("source_bytes", "compressed_bytes")}
    if not all(isinstance(size, int) and size >= 0 for size in sizes.values()):
        raise ValueError("a size is none")
    return {"name": name, "file": file, "key": key, **sizes}
