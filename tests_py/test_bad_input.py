"""Input that is not what it should be, and outputs that cannot be written: the right exception, and nothing left behind."""

import errno
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bigsmall
from models import Raw, files_of, safetensors_bytes, weights, write_safetensors

READERS: dict[str, Callable[[Path], Any]] = {
    "info": bigsmall.info,
    "stat": bigsmall.stat,
    "decompress": bigsmall.decompress,
    "decompress to a file": lambda path: bigsmall.decompress(path, path.with_name("back.safetensors")),
    "safe_open": lambda path: bigsmall.safe_open(path, "np"),
    "Reader": bigsmall.Reader,
}


@pytest.fixture(params=READERS)
def reader(request: pytest.FixtureRequest) -> Callable[[Path], Any]:
    return READERS[request.param]


@pytest.mark.parametrize(
    ("contents", "error"),
    [
        (b"", bigsmall.FormatError),
        (b"BGSM", bigsmall.FormatError),
        (b"BGS", bigsmall.FormatError),
        (b"\0" * 100, bigsmall.FormatError),
        (b"PK\3\4 a zip archive, perhaps", bigsmall.FormatError),
        (safetensors_bytes({"x": weights("F32", 4)}), bigsmall.FormatError),
        (b"BGSM" + struct.pack("<HI", 1, 2) + b"{}", bigsmall.FormatError),
        (b"BGSM" + struct.pack("<HI", 99, 2) + b"{}" + bytes(100), bigsmall.VersionError),
        (b"BGSM" + struct.pack("<HI", 16, 0xFFFFFFFF) + bytes(100), bigsmall.FormatError),
    ],
    ids=["empty", "magic only", "half a magic", "zeros", "zip", "safetensors", "version 1", "version 99", "huge header"],
)
def test_files_of_other_kinds(tmp_path: Path, reader: Callable[[Path], Any], contents: bytes, error: type[Exception]) -> None:
    path = tmp_path / "a.bs"
    path.write_bytes(contents)
    with pytest.raises(error) as caught:
        reader(path)
    assert caught.value.path == str(path)
    assert str(path) in str(caught.value)
    assert files_of(tmp_path).keys() == {"a.bs"}


def test_a_file_that_is_not_there(tmp_path: Path, reader: Callable[[Path], Any]) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.bs"):
        reader(tmp_path / "nowhere.bs")


def test_every_prefix_of_a_file_is_refused(tmp_path: Path) -> None:
    whole = small_file(tmp_path)
    path = tmp_path / "cut.bs"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(bigsmall.BigSmallError):
            bigsmall.decompress(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(bigsmall.FormatError):
        bigsmall.decompress(path)


def test_every_flipped_byte_of_a_file_is_noticed(tmp_path: Path) -> None:
    whole = small_file(tmp_path)
    original = {name: array.tobytes() for name, array in bigsmall.decompress(tmp_path / "small.bs").items()}
    path = tmp_path / "flipped.bs"
    unnoticed = []
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= 1 << position % 8
        path.write_bytes(data)
        try:
            arrays = bigsmall.decompress(path)
        except bigsmall.BigSmallError:
            continue
        # Only padding between blobs belongs to nothing.
        assert {name: array.tobytes() for name, array in arrays.items()} == original
        unnoticed.append(position)
    assert all(whole[position] == 0 for position in unnoticed)


def small_file(directory: Path) -> bytes:
    """A `.bs` file of a few KiB with a coded, a stored, a tied, a constant, an empty and a packed tensor."""
    tensors = {
        "coded": weights("BF16", 32, 48),
        "stored": Raw("U8", (200,), random.Random(1).randbytes(200)),
        "tied": weights("BF16", 32, 48),
        "constant": Raw("F32", (9,), struct.pack("<f", 1.0) * 9),
        "empty": weights("I32", 0),
        "bias one": weights("BF16", 12, seed=1),
        "bias two": weights("BF16", 12, seed=2),
    }
    bigsmall.compress(write_safetensors(directory / "small.safetensors", tensors), directory / "small.bs", force=True)
    return (directory / "small.bs").read_bytes()


def damaged_model(directory: Path) -> tuple[Path, dict[str, Raw], str]:
    """(a file with one flipped bit, its tensors, the tensor that is hit)"""
    tensors = {f"t{k}": weights("BF16", 400, 400, seed=k) for k in range(4)}
    path = directory / "a.bs"
    bigsmall.compress(write_safetensors(directory / "a.safetensors", tensors), path)
    data = bytearray(path.read_bytes())
    data[-5000] ^= 4
    path.write_bytes(data)
    return path, tensors, "t3"


def test_damage_is_named_and_leaves_no_output(tmp_path: Path) -> None:
    path, _, hit = damaged_model(tmp_path)
    for use in (bigsmall.decompress, lambda path: bigsmall.decompress(path, tmp_path / "back.safetensors")):
        with pytest.raises(bigsmall.CorruptError) as caught:
            use(path)
        assert (caught.value.path, caught.value.tensor) == (str(path), hit)
        assert isinstance(caught.value.block, int)
    assert files_of(tmp_path).keys() == {"a.safetensors", "a.bs"}


def test_damage_in_verify(tmp_path: Path) -> None:
    path, _, hit = damaged_model(tmp_path)
    facts = bigsmall.verify(path)
    assert not facts["ok"]
    assert [(problem["path"], problem["tensor"]) for problem in facts["problems"]] == [(str(path), hit)]
    assert isinstance(facts["problems"][0]["block"], int)
    assert facts["problems"][0]["message"]


def test_the_other_tensors_still_load(tmp_path: Path) -> None:
    from bigsmall.numpy import load

    path, tensors, hit = damaged_model(tmp_path)
    damaged: dict[str, bigsmall.BigSmallError] = {}
    arrays = load(path, damaged=damaged)
    assert damaged.keys() == {hit}
    assert isinstance(damaged[hit], bigsmall.CorruptError)
    assert {name: array.tobytes() for name, array in arrays.items()} == {name: raw.data for name, raw in tensors.items() if name != hit}
    with pytest.raises(bigsmall.CorruptError):
        load(path)


def test_a_lying_header_takes_no_memory(tmp_path: Path) -> None:
    """A source and a compressed file that announce more than any machine has."""
    for shape in ([1 << 40, 1 << 20], [1 << 62, 4], [2**63]):
        text = str({"x": {"dtype": "F32", "shape": shape, "data_offsets": [0, 8]}}).replace("'", '"').encode()
        (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
        with pytest.raises(bigsmall.SourceError):
            bigsmall.compress(tmp_path / "a.safetensors", tmp_path / "a.bs")
    assert files_of(tmp_path).keys() == {"a.safetensors"}


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"\0" * 7,
        b"\xff" * 64,
        struct.pack("<Q", 1 << 62),
        struct.pack("<Q", 2) + b"{}" + b"left over",
        struct.pack("<Q", 5) + b"[1,2]",
        struct.pack("<Q", 9) + b"\xff" * 9,
        struct.pack("<Q", 64) + b'{"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}'.ljust(64) + bytes(4),
        struct.pack("<Q", 64) + b'{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,5]}}'.ljust(64) + bytes(5),
        struct.pack("<Q", 64) + b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}'.ljust(64) + bytes(4),
        struct.pack("<Q", 64) + b'{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'.ljust(64) + bytes(4),
        struct.pack("<Q", 64) + b'{"x":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}'.ljust(64) + bytes(1),
        struct.pack("<Q", 80) + b'{"x":{"dtype":"F32","shape":[0,4611686018427387904,2],"data_offsets":[0,0]}}'.ljust(80),
        struct.pack("<Q", 192) + (b'{"x":{"dtype":"U8","shape":[' + b"1," * 64 + b'1],"data_offsets":[0,1]}}').ljust(192) + bytes(1),
    ],
    ids=[
        "empty",
        "cut length",
        "ones",
        "huge length",
        "left over",
        "array",
        "no UTF-8",
        "dtype",
        "size",
        "negative",
        "cut data",
        "half a byte",
        "strides that overflow",
        "65 dimensions",
    ],
)
def test_sources_that_are_no_safetensors(tmp_path: Path, contents: bytes) -> None:
    source = tmp_path / "a.safetensors"
    source.write_bytes(contents)
    for use in (lambda path: bigsmall.compress(path, tmp_path / "a.bs"), bigsmall.scan):
        with pytest.raises(bigsmall.SourceError) as caught:
            use(source)
        assert caught.value.path == str(source)
    assert files_of(tmp_path).keys() == {"a.safetensors"}


@pytest.mark.parametrize("second", [(1, 2), (0, 1)], ids=["two tensors", "the same twice"])
def test_duplicate_names_are_refused(tmp_path: Path, second: tuple[int, int]) -> None:
    entry = b'"x":{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}'
    text = b"{" + entry % (0, 1) + b"," + entry % second + b"}"
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(second[1]))
    with pytest.raises(bigsmall.SourceError, match="twice") as caught:
        bigsmall.compress(tmp_path / "a.safetensors")
    assert caught.value.tensor == "x"


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ('{"dtype":"F32","shape":[1],"data_offsets":[4,8]}', "overlaps"),
        ('{"dtype":"F32","shape":[1],"data_offsets":[0,5]}', "shape"),
        ('{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}', "-1"),
        ('{"dtype":"F99","shape":[1],"data_offsets":[0,4]}', "F99"),
        ("5", "data_offsets"),
    ],
)
def test_a_wrong_tensor_of_a_source_is_named(tmp_path: Path, entry: str, words: str) -> None:
    text = f'{{"wrong":{entry}}}'.encode()
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(bigsmall.SourceError, match=words) as caught:
        bigsmall.compress(tmp_path / "a.safetensors")
    assert caught.value.tensor == "wrong"


def test_a_source_of_the_wrong_length_tells_the_right_one(tmp_path: Path, source: Path) -> None:
    whole = source.read_bytes()
    for contents, words in ((whole[:-1], "truncated"), (whole + b"x", "longer")):
        source.write_bytes(contents)
        with pytest.raises(bigsmall.SourceError, match=f"{words}.*{len(contents)} bytes instead of {len(whole)}"):
            bigsmall.compress(source)


def test_an_existing_output_is_kept_unless_forced(source: Path, compressed: Path) -> None:
    for verb, src, dst in ((bigsmall.compress, source, compressed), (bigsmall.decompress, compressed, source)):
        before = dst.read_bytes()
        dst.write_bytes(b"mine")
        copy = src.with_name("copy")
        if dst is source:
            copy.write_bytes(src.read_bytes())
            src = copy
        with pytest.raises(FileExistsError, match=dst.name):
            verb(src, dst)
        assert dst.read_bytes() == b"mine"
        verb(src, dst, force=True)
        assert dst.read_bytes() == before


def test_the_output_is_not_the_source(tmp_path: Path, source: Path, compressed: Path) -> None:
    (tmp_path / "link").symlink_to(source)
    for verb, src, dst in (
        (bigsmall.compress, source, source),
        (bigsmall.compress, source, tmp_path / "link"),
        (bigsmall.decompress, compressed, compressed),
    ):
        before = src.read_bytes()
        with pytest.raises((bigsmall.OptionError, FileExistsError)):
            verb(src, dst, force=True)
        assert src.read_bytes() == before


def test_outputs_that_cannot_be_written(tmp_path: Path, source: Path, compressed: Path) -> None:
    nowhere = tmp_path / "no such directory" / "a"
    for src in (source, tmp_path):
        with pytest.raises(FileNotFoundError) as caught:
            bigsmall.compress(src, nowhere)
        assert (caught.value.filename, caught.value.strerror) == (str(nowhere), os.strerror(errno.ENOENT))
    (tmp_path / "a directory").mkdir()
    for force in (False, True):
        with pytest.raises((FileExistsError, IsADirectoryError)):
            bigsmall.decompress(compressed, tmp_path / "a directory", force=force)
    assert (tmp_path / "a directory").is_dir()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_pipes_are_neither_read_nor_replaced(tmp_path: Path, source: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for use in (bigsmall.compress, bigsmall.scan, bigsmall.info, bigsmall.verify, lambda pipe: bigsmall.compress(source, pipe, force=True)):
        with pytest.raises(bigsmall.OptionError, match="pipe") as caught:
            use(pipe)
        assert caught.value.path == str(pipe)
    assert pipe.is_fifo()
    with pytest.raises(bigsmall.OptionError, match="pipe"):
        bigsmall.compress(tmp_path, tmp_path.with_name("packed"))


def test_more_threads_than_can_be(source: Path) -> None:
    with pytest.raises(bigsmall.OptionError, match="threads"):
        bigsmall.compress(source, threads=100_000)
    assert not source.with_suffix(".bs").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_directory_without_permission(tmp_path: Path, source: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        bigsmall.compress(source, tmp_path / "locked" / "a.bs")


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for a disk that fills up half-way."""
    pytest.importorskip("resource")
    (tmp_path / "source").mkdir()
    for path in (tmp_path / "a.safetensors", tmp_path / "source" / "a.safetensors"):
        write_safetensors(path, {"x": weights("BF16", 1024, 1024)})
    bigsmall.compress(tmp_path / "a.safetensors", tmp_path / "a.bs")
    before = files_of(tmp_path)
    script = """
import resource, sys, bigsmall
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
compress, decompress = bigsmall.compress, bigsmall.decompress
for verb, src, dst in ((compress, "a.safetensors", "b.bs"), (decompress, "a.bs", "b.safetensors"), (compress, "source", "dir")):
    try:
        verb(src, dst)
    except OSError as error:
        print(type(error).__name__, error.errno, error.filename)
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"OSError {errno.EFBIG} {name}" for name in ("b.bs", "b.safetensors", "dir/a.bs")]
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("mode", ["", "fast", "BALANCED"])
def test_a_mode_that_does_not_exist(tmp_path: Path, source: Path, mode: str) -> None:
    with pytest.raises(bigsmall.OptionError, match="mode"):
        bigsmall.compress(source, tmp_path / "b.bs", mode=mode)


def test_the_family_of_exceptions() -> None:
    for kind in (bigsmall.FormatError, bigsmall.CorruptError, bigsmall.SourceError, bigsmall.OptionError, bigsmall.MissingTensorError):
        assert issubclass(kind, bigsmall.BigSmallError)
        assert kind.__module__.startswith("bigsmall")
    assert issubclass(bigsmall.VersionError, bigsmall.FormatError)
    assert issubclass(bigsmall.OptionError, ValueError)
    assert issubclass(bigsmall.MissingTensorError, KeyError)
