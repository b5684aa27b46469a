"""What this package and the published one do with the same files: both command lines are run, and what comes out is compared."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import environment
from rivals import published

if TYPE_CHECKING:
    from results import Facts
    from run import Run

SEED_FILE = Path(__file__).resolve().parents[2] / "python" / "bigsmall" / "data" / "demo.safetensors"
GOLDEN = Path(__file__).resolve().parents[2] / "tests" / "golden" / "published"

BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
"""All dtypes of safetensors, with the bits of an element."""

N_FLIPS = 16
N_RUNS = 3

Tensors = Mapping[str, tuple[str, tuple[int, ...], bytes]]


class Done(NamedTuple):
    """How a command ended."""

    status: int
    messages: str


class Package:
    """One of the two, in an environment of its own."""

    def __init__(self, python: str) -> None:
        self.python = python

    def run(self, *arguments: object) -> Done:
        # Or each start asks the package index for the newest version.
        environ = os.environ | {"BIGSMALL_DISABLE_VERSION_CHECK": "1", "BIGSMALL_WORKERS": "1"}
        command = [self.python, "-c", "import sys; from bigsmall.cli import main; sys.exit(main())", *map(str, arguments)]
        done = subprocess.run(command, env=environ, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return Done(done.returncode, done.stderr)

    def restored(self, source: Path) -> Path | None:
        """The file after compressing and restoring; None if either failed."""
        packed, back = source.with_suffix(".bs"), source.with_suffix(".back")
        done = self.run("compress", source, "-o", packed)
        if done.status == 0:
            done = self.run("decompress", packed, "-o", back)
        return back if done.status == 0 and back.exists() else None


def read(path: Path) -> dict[str, tuple[str, tuple[int, ...], str]]:
    """Dtype, shape and digest of every tensor of a safetensors file."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)

    def one(about: dict[str, object]) -> tuple[str, tuple[int, ...], str]:
        first, last = about["data_offsets"]
        return about["dtype"], tuple(about["shape"]), hashlib.sha256(data[start + first : start + last]).hexdigest()

    return {name: one(about) for name, about in header.items()}


def write(path: Path, tensors: Tensors, metadata: Mapping[str, str] | None = None) -> Path:
    header: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(data for _, _, data in tensors.values()))
    return path


def some(dtype: str, *shape: int) -> tuple[str, tuple[int, ...], bytes]:
    n_bytes = prod(shape) * BITS[dtype] // 8
    stream = b"".join(hashlib.sha256(f"{dtype} {i}".encode()).digest() for i in range(n_bytes // 32 + 1))[:n_bytes]
    return dtype, shape, bytes(byte & 1 for byte in stream) if dtype == "BOOL" else stream


# ---- what opens


def dtypes(package: Package, scratch: Path) -> str:
    n_exact = 0
    for dtype in BITS:
        source = write(scratch / f"{dtype}.safetensors", {"tensor": some(dtype, 64, 32)})
        back = package.restored(source)
        n_exact += back is not None and read(back) == read(source)
    return f"{n_exact} of {len(BITS)}"


def without_dimensions(package: Package, scratch: Path) -> str:
    source = write(scratch / "scalar.safetensors", {"scale": some("F32"), "weight": some("BF16", 64, 32)})
    back = package.restored(source)
    return yes(back is not None and read(back) == read(source))


def scalar_bf16(package: Package, scratch: Path) -> str:
    source = write(scratch / "scalar-bf16.safetensors", {"scale": some("BF16"), "weight": some("BF16", 64, 32)})
    return yes(package.restored(source) is not None)


def same_file(package: Package, scratch: Path) -> str:
    source = shutil.copy(SEED_FILE, scratch / "demo.safetensors")
    back = package.restored(Path(source))
    return yes(back is not None and back.read_bytes() == Path(source).read_bytes())


def directory(package: Package, scratch: Path) -> str:
    model = scratch / "model"
    model.mkdir()
    shutil.copy(SEED_FILE, model / "model.safetensors")
    (model / "config.json").write_text("{}\n")
    done = package.run("compress", model, "-o", scratch / "packed")
    if done.status == 0:
        done = package.run("decompress", scratch / "packed", "-o", scratch / "back")
    return yes(done.status == 0 and read(scratch / "back" / "model.safetensors") == read(SEED_FILE))


# ---- what is verified


def flips(package: Package, scratch: Path) -> str:
    """Bits of the second half of a file, where only blobs are, flipped one at a time."""
    source = Path(shutil.copy(SEED_FILE, scratch / "demo.safetensors"))
    packed = scratch / "demo.bs"
    package.run("compress", source, "-o", packed)
    good = packed.read_bytes()
    n_wrong = 0
    for i in range(N_FLIPS):
        bad = bytearray(good)
        bad[len(good) // 2 + i * (len(good) // 2 // N_FLIPS)] ^= 1 << i % 8
        (scratch / "flipped.bs").write_bytes(bad)
        back = scratch / f"flipped-{i}.safetensors"
        done = package.run("decompress", scratch / "flipped.bs", "-o", back)
        n_wrong += done.status == 0 and read(back) != read(source)
    return f"{n_wrong} of {N_FLIPS}"


def patch_alone(package: Package, scratch: Path) -> str:
    """A delta of the published package's, from the golden files."""
    back = scratch / "alone.safetensors"
    done = package.run("decompress", GOLDEN / "delta.bs", "-o", back)
    return "writes the differences as weights" if done.status == 0 and back.exists() else "refuses"


# ---- what fails


def truncated(package: Package, scratch: Path) -> str:
    source = Path(shutil.copy(SEED_FILE, scratch / "demo.safetensors"))
    package.run("compress", source, "-o", scratch / "demo.bs")
    os.truncate(scratch / "demo.bs", (scratch / "demo.bs").stat().st_size * 2 // 3)
    done = package.run("decompress", scratch / "demo.bs", "-o", scratch / "back")
    if done.status == 0:
        return "restores something"
    left = ", and leaves a file" if (scratch / "back").exists() else ""
    return ("a traceback" if "Traceback" in done.messages else f"{done.messages.count(chr(10))} line") + left


def overwriting(package: Package, scratch: Path) -> str:
    source = Path(shutil.copy(SEED_FILE, scratch / "demo.safetensors"))
    target = scratch / "precious"
    target.write_bytes(b"precious")
    package.run("compress", source, "-o", target)
    return "is kept without `--force`" if target.read_bytes() == b"precious" else "is replaced"


def same_bytes(package: Package, scratch: Path) -> str:
    metadata = {key: key for key in "abcdef"}
    source = write(scratch / "metadata.safetensors", {"weight": some("BF16", 64, 32)}, metadata)
    packed = set()
    for i in range(N_RUNS):
        package.run("compress", source, "-o", scratch / f"{i}.bs")
        packed.add((scratch / f"{i}.bs").read_bytes())
    return yes(len(packed) == 1)


def plain_script(package: Package, scratch: Path) -> str:
    """The three lines that one tries first, in a file of their own and not guarded against being imported."""
    source = Path(shutil.copy(SEED_FILE, scratch / "demo.safetensors"))
    script = scratch / "script.py"
    script.write_text(f"import bigsmall\nbigsmall.compress({str(source)!r}, {str(scratch / 'demo.bs')!r})\n")
    environ = os.environ | {"BIGSMALL_DISABLE_VERSION_CHECK": "1"}
    environ.pop("BIGSMALL_WORKERS", None)
    try:
        done = subprocess.run([package.python, script], env=environ, capture_output=True, timeout=120)
    except subprocess.TimeoutExpired:
        return "no"
    return yes(done.returncode == 0)


def yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


CHECKS: dict[str, dict[str, Callable[[Package, Path], str]]] = {
    "opens": {
        "dtypes of safetensors that come back, bit for bit": dtypes,
        "a tensor without dimensions comes back as one": without_dimensions,
        "a model with a BF16 tensor without dimensions": scalar_bf16,
        "the restored file is the source, byte for byte": same_file,
        "`compress DIR` and `decompress DIR`": directory,
    },
    "is verified": {
        f"one bit of a file flipped, {N_FLIPS} times: wrong weights, and exit status 0": flips,
        "a delta decompressed without its base": patch_alone,
    },
    "fails": {
        "a truncated file: the error": truncated,
        "an output that exists": overwriting,
        "the same input gives the same bytes": same_bytes,
        "`bigsmall.compress` in a script without a `__main__` guard": plain_script,
    },
}


class Row(NamedTuple):
    """One question. A package that could not be run has no answer."""

    group: str
    question: str
    published: str | None
    own: str | None


def measure(run: Run) -> list[Row]:
    def answers(name: str, interpreter: Callable[[], str]) -> Facts:
        return run.results.once(f"comparison/{name}", lambda: ask(Package(interpreter()), run.scratch))

    theirs = answers("published", lambda: environment.interpreter(published.RIVAL.name, published.RIVAL.requirements))
    own = answers("bigsmall", lambda: sys.executable)
    return rows(theirs, own)


def rows(theirs: Facts, own: Facts) -> list[Row]:
    return [Row(group, question, theirs.get(question), own.get(question)) for group, checks in CHECKS.items() for question in checks]


def ask(package: Package, scratch: Path) -> Facts:
    """The package's answer to each question."""
    answers = {}
    for question, check in (one for checks in CHECKS.values() for one in checks.items()):
        with tempfile.TemporaryDirectory(dir=scratch) as directory:
            answers[question] = check(package, Path(directory))
    return answers
