"""Download, compress, upload: a way that may be interrupted anywhere and goes on where it stopped.

What is done is written to a checkpoint file beside the output. A stage counts once its result is whole: the download is the Hub's own,
which goes on with the files that are missing; a compressed folder gets its name when all of it is on the disk; and the upload leaves out
what the repository has.
"""

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .._core import packed_files
from ..errors import FormatError, OptionError, located
from ..files import Mode, StrPath, compress
from ..progress import ProgressOption
from .publishing import download_source, upload_to_hub, upload_to_hub_lfs
from .remote import listing

CHECKPOINT_SUFFIX = ".pipeline.json"
STAGES = ("download", "compress", "upload")
FORMAT = 1

Say = Callable[[str], object]
"""Takes a line for people."""


class OtherCheckpointError(OptionError):
    """What was begun is not what is to be done now."""


@dataclass
class Checkpoint:
    """What a pipeline has done."""

    source: dict[str, Any]
    """Which model: a folder with the names, sizes and times of its files, or a repository with its commit."""
    mode: str
    repo_id: str | None
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What stages that are through have made, by their names."""
    format: int = FORMAT

    @staticmethod
    def path_of(output_dir: StrPath) -> Path:
        output = Path(output_dir).absolute()
        return output.with_name(output.name + CHECKPOINT_SUFFIX)

    @classmethod
    def read(cls, output_dir: StrPath) -> "Checkpoint | None":
        """That of an output, if there is one. Raises FormatError for a file that is none."""
        path = cls.path_of(output_dir)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            checkpoint = cls(**json.loads(data))
            known = checkpoint.format == FORMAT and checkpoint.done.keys() <= set(STAGES)
        except (ValueError, TypeError, AttributeError) as error:
            raise located(FormatError, "this is no checkpoint of a pipeline", path=path) from error
        if not known:
            raise located(FormatError, "this is a checkpoint of another release", path=path)
        return checkpoint

    def write(self, output_dir: StrPath) -> None:
        """Replaces the file in one step."""
        path = self.path_of(output_dir)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False) as file:
            try:
                json.dump(asdict(self), file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            except BaseException:
                Path(file.name).unlink()
                raise
        Path(file.name).replace(path)


def run_pipeline(
    source: StrPath,
    output_dir: StrPath,
    *,
    repo_id: str | None = None,
    mode: Mode = "balanced",
    compresses: bool = True,
    uploads: bool = True,
    lfs: bool = False,
    private: bool = False,
    restart: bool = False,
    token: str | bool | None = None,
    revision: str | None = None,
    threads: int = 0,
    progress: ProgressOption = None,
    say: Say = lambda line: None,
) -> dict[str, Any]:
    """Bring a model to the Hub in compressed form. Called again after an interruption, it leaves out what is done.

    Args:
        source: a model folder, or a repository of the Hub.
        output_dir: the folder of the compressed model. The checkpoint file lies beside it.
        repo_id: where to upload to; without one nothing is uploaded.
        mode: `balanced`, `storage` or `inference`.
        compresses, uploads: whether to do these stages.
        lfs: upload file by file, see `upload_to_hub_lfs`.
        private: for a new repository.
        restart: forget a checkpoint that is there, and replace the output.
        token, revision: for the Hub.
        threads: 0 means one per core.
        progress: True for a bar on stderr, or a function called with (raw bytes done, raw bytes in all).
        say: is told what happens.

    Returns:
        the checkpoint, as it is in the file.

    Raises:
        OtherCheckpointError: the checkpoint is of another source or mode.
        FileNotFoundError, FileExistsError, SourceError, OSError: as `compress_for_hub` and `upload_to_hub`.
    """
    known = None if restart else Checkpoint.read(output_dir)
    identity = _identity(source, revision, token)
    if known is not None and (known.source, known.mode) != (identity, mode):
        what = "source" if known.source != identity else "mode"
        raise OtherCheckpointError(f"{Checkpoint.path_of(output_dir)}: this is the checkpoint of another {what}")
    checkpoint = known or Checkpoint(identity, mode, repo_id)
    if repo_id is not None and checkpoint.repo_id != repo_id:
        checkpoint.repo_id = repo_id
        checkpoint.done.pop("upload", None)
    Path(output_dir).absolute().parent.mkdir(parents=True, exist_ok=True)
    checkpoint.write(output_dir)

    def finish(stage: str, facts: dict[str, Any]) -> None:
        checkpoint.done[stage] = facts
        checkpoint.write(output_dir)
        say(f"{stage}: done")

    has_output = "compress" in checkpoint.done and _sizes(Path(output_dir)) == checkpoint.done["compress"].get("files")
    if compresses and not has_output:
        # What follows from an output that has been lost or changed is to be done again.
        checkpoint.done = {stage: facts for stage, facts in checkpoint.done.items() if stage == "download"}
        folder = Path(source)
        if "commit" in identity:
            if "download" not in checkpoint.done:
                say(f"download: {source}")
            folder = download_source(str(source), token=token, revision=identity["commit"])
            finish("download", {"folder": str(folder), "files": _sizes(folder)})
        say(f"compress: {folder} -> {output_dir}")
        is_own = restart or known is not None
        compress(folder, output_dir, mode=mode, force=is_own, threads=threads, progress=progress)
        finish("compress", {"files": _sizes(Path(output_dir))})
    elif compresses:
        say("compress: already done")
    if uploads and checkpoint.repo_id is not None:
        packed_files(output_dir)
        if checkpoint.done.get("upload", {}).get("files") == _sizes(Path(output_dir)):
            say("upload: already done")
        else:
            say(f"upload: {output_dir} -> {checkpoint.repo_id}")
            url = (upload_to_hub_lfs if lfs else upload_to_hub)(output_dir, checkpoint.repo_id, private=private, token=token)
            finish("upload", {"url": url, "files": _sizes(Path(output_dir))})
    return asdict(checkpoint)


def _identity(source: StrPath, revision: str | None, token: str | bool | None) -> dict[str, Any]:
    """What tells one source from another, without reading all of it."""
    path = Path(source)
    if not path.exists():
        return {"repo_id": str(source), "commit": listing(str(source), revision=revision, token=token).commit}
    files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
    return {
        "path": str(path.resolve()),
        "files": [[str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns] for file in files],
    }


def _sizes(folder: Path) -> dict[str, int]:
    return {file.relative_to(folder).as_posix(): file.stat().st_size for file in sorted(folder.rglob("*")) if file.is_file()}
