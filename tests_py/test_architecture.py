"""docs/architecture.md describes the code that is there."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "architecture.md").read_text()


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def names(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def first_column(text: str) -> set[str]:
    return {name for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in names(row)}


def test_unsafe_code_is_where_the_page_says() -> None:
    src = ROOT / "src"
    allowed = {str(path.relative_to(src).with_suffix("")) for path in src.rglob("*.rs") if "allow(unsafe_code)" in path.read_text()}
    assert first_column(section("Unsafe code")) == allowed


def test_every_dependency_is_explained() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text())
    explained = first_column(section("Packages this stands on"))
    assert {*cargo["dependencies"], *cargo["dev-dependencies"]} <= explained


def test_every_codec_with_a_blob_is_described() -> None:
    table = (ROOT / "src" / "codec.rs").read_text()
    codecs = set(re.findall(r'\(Codec::\w+, "(\w+)"\)', table))
    assert codecs - first_column(section("From a tensor to its blob")) == {"empty", "constant", "tied", "packed"}


def test_every_python_module_is_described() -> None:
    package = ROOT / "python" / "bigsmall"
    modules = {path.stem for path in package.glob("*.py") if not path.stem.startswith("__")}
    assert modules <= first_column(section("Python"))


def test_the_modules_in_the_picture_exist() -> None:
    picture = section("The picture").split("```")[1]
    words = {word.rstrip("/") for word in re.findall(r"\b[a-z]+/?", picture.split("boundary")[1])}
    modules = {path.stem for path in (ROOT / "src").glob("*.rs")} - {"lib", "test_data", "python"}
    assert modules <= words
