"""Installs torch into the running interpreter's environment, without the CUDA libraries where there is no GPU.

    python tools/install_torch.py 'torch>=2.4'

PyPI's Linux wheels of torch are linked against the CUDA libraries, which come as other wheels: gigabytes, none of which is called where
there is no such GPU. So torch is installed without them, and the loader finds stand-ins: libraries of the same names whose functions
all say that there is no device. Where torch does not work like that, all of it is installed.
"""

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory

# Distributions that only a GPU needs, and the functions of their libraries.
GPU_DISTRIBUTION = re.compile(r"(nvidia|cuda|triton|pytorch-triton)\b")
GPU_FUNCTION = re.compile(r"_*(cu|nv|nccl)\w+")
# cudaErrorNoDevice. The other libraries take anything but 0 for a failure.
NO_DEVICE = 100
# Those that give the words for a failure.
TEXT_FUNCTION = re.compile(r"(cuda|cublas|cudnn|cusparse|cusolver|cufft|nvrtc|nccl)\w*Get\w*(String|Name)|ncclGetLastError")
PROBE = """
import torch
assert (torch.ones(2, 2) @ torch.ones(2, 2)).sum() == 8
assert not torch.cuda.is_available()
try:
    torch.cuda.is_current_stream_capturing()
except RuntimeError:
    pass
"""


def main() -> None:
    requirement = sys.argv[1]
    has_gpu = Path("/dev/nvidiactl").exists()
    if sys.platform != "linux" or has_gpu or not install_without_gpu_libraries(requirement):
        pip_install(requirement)


def install_without_gpu_libraries(requirement: str) -> bool:
    """Whether torch then works."""
    pip_install("--no-deps", requirement)
    importlib.invalidate_caches()
    dependencies = importlib.metadata.requires("torch") or []
    pip_install(*(line for line in dependencies if "extra ==" not in line and not GPU_DISTRIBUTION.match(line)))
    directory = Path(sysconfig.get_path("platlib"), "torch", "lib")
    try:
        if names := missing_libraries(directory / "libtorch_python.so"):
            functions = missing_functions(directory, names)
            for name in names:
                build_stand_in(directory / name, functions[name])
        subprocess.run([sys.executable, "-c", PROBE], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"torch does not work without the CUDA libraries, which are now installed: {error}", file=sys.stderr)
        return False
    return True


def pip_install(*arguments: str) -> None:
    """Run `pip install`, whose output is shown only if it fails: it warns of the dependencies that are left out."""
    command = [sys.executable, "-m", "pip", "install", "--progress-bar=off", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(done.stdout, file=sys.stderr)
        sys.exit(done.returncode)


def missing_libraries(library: Path) -> list[str]:
    """Names of the libraries that the loader would not find for `library`."""
    return sorted(set(re.findall(r"^\s*(\S+) => not found$", output("ldd", library), re.MULTILINE)))


def missing_functions(directory: Path, names: list[str]) -> dict[str, set[tuple[str, str]]]:
    """For each of the missing libraries: (function, version) that the libraries in `directory` want of it."""
    wanted: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for library in directory.glob("*.so*"):
        library_of: dict[str, str] = {}
        for name, lines in re.findall(r"^  required from (\S+):\n((?:    .*\n)*)", output("objdump", "-p", library), re.MULTILINE):
            library_of |= {line.split()[-1]: name for line in lines.splitlines()}
        for line in output("nm", "-D", "--undefined-only", library).splitlines():
            function, _, version = line.split()[-1].partition("@")
            # Where a function without a version comes from is not recorded: any library may have it.
            name = library_of.get(version, names[0])
            if name in names and GPU_FUNCTION.fullmatch(function):
                wanted[name].add((function, version))
    return wanted


def build_stand_in(library: Path, functions: set[tuple[str, str]]) -> None:
    """Build a shared library of these functions, each of which fails."""
    by_version: dict[str, list[str]] = defaultdict(list)
    for function, version in sorted(functions):
        by_version[version].append(function)
    with TemporaryDirectory() as scratch:
        source, script = Path(scratch, "stand_in.c"), Path(scratch, "versions")
        source.write_text("".join(stand_in_for(function) for function, _ in sorted(functions)))
        script.write_text("".join(f"{version} {{ {'; '.join(names)}; }};\n" for version, names in by_version.items() if version))
        versions = [f"-Wl,--version-script={script}"] if any(by_version) else []
        subprocess.run(["cc", "-shared", "-fPIC", f"-Wl,-soname,{library.name}", *versions, "-o", library, source], check=True)


def stand_in_for(function: str) -> str:
    if TEXT_FUNCTION.fullmatch(function):
        return f'const char *{function}(void) {{ return "there is no such device"; }}\n'
    return f"long {function}(void) {{ return {NO_DEVICE}; }}\n"


def output(*command: str | Path) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
