"""Show the whole way on a small language model that comes with the package.

Compresses it, tells what became of its tensors, verifies, restores, and compares the sha256 of the restored file with the source's.
Last, it has the compressed model write a text, loaded whole and decoded layer by layer as it runs, if PyTorch and transformers are
installed. Any other safetensors file can be given instead; then it ends before the text."""

import argparse
import hashlib
import tempfile
from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

from .. import files
from ..summary import ratio_pct, stat
from . import kinds
from .arguments import add_json, add_mode, add_progress, add_threads
from .outcome import CommandError, Exit
from .printer import emit, n_bytes, percent
from .text import generated


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("src", metavar="PATH", nargs="?", type=Path, help="safetensors file; default: the model of the package")
    parser.add_argument("--output-dir", metavar="DIR", type=Path, help="keep the outputs here; default: a temporary directory, removed")
    parser.add_argument("--force", action="store_true", help="replace existing outputs")
    add_mode(parser)
    add_threads(parser)
    add_json(parser)
    add_progress(parser)


def run(args: argparse.Namespace) -> Exit:
    shared = {"threads": args.threads, "progress": args.progress}
    with ExitStack() as stack:
        data = stack.enter_context(resources.as_file(resources.files("bigsmall") / "data"))
        src = args.src or data / "demo.safetensors"
        source_sha256 = _sha256(src)
        if args.output_dir is None:
            out_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bigsmall-")))
        else:
            out_dir = args.output_dir
            out_dir.mkdir(parents=True, exist_ok=True)
        compressed, restored = out_dir / f"{src.stem}.bs", out_dir / f"{src.stem}.restored.safetensors"
        sizes = files.compress(src, compressed, mode=args.mode, force=args.force, **shared)
        rows = stat(compressed)
        checked = files.verify(compressed, **shared)
        files.decompress(compressed, restored, force=args.force, **shared)
        restored_sha256 = _sha256(restored)
        text: dict[str, Any] | None = None
        text_needs = None
        if args.src is None:
            try:
                text = generated(compressed, data)
            except ModuleNotFoundError as error:
                text_needs = error.msg
    ratio = ratio_pct(sizes["compressed_bytes"], sizes["source_bytes"])
    same = source_sha256 == restored_sha256
    agrees = text is None or text["loaded"] == text["streamed"]
    is_kept = args.output_dir is not None
    facts = {
        "source": str(src),
        "compressed": str(compressed) if is_kept else None,
        "restored": str(restored) if is_kept else None,
        "mode": args.mode,
        "source_bytes": sizes["source_bytes"],
        "compressed_bytes": sizes["compressed_bytes"],
        "ratio_pct": ratio,
        "kinds": kinds.totals(rows),
        "verified": checked["ok"],
        "source_sha256": source_sha256,
        "restored_sha256": restored_sha256,
        "text": text,
        "text_needs": text_needs,
        "ok": checked["ok"] and same and agrees,
    }
    lines = [
        f"compressed {src} -> {compressed}",
        f"  source:     {n_bytes(sizes['source_bytes'])}",
        f"  compressed: {n_bytes(sizes['compressed_bytes'])} ({percent(ratio)})",
        "",
        *kinds.lines(rows),
        "",
        f"verified {compressed}",
        f"  {checked['n_checked']:,} of {checked['n_tensors']:,} tensors decoded; {'all md5 equal' if checked['ok'] else 'FAIL'}",
        "",
        f"decompressed {compressed} -> {restored}",
        f"  sha256 of the source:   {source_sha256}",
        f"  sha256 of the restored: {restored_sha256}",
        "  the same file, bit for bit" if same else "  FAIL: not the same file",
        *_text_lines(text, text_needs, compressed),
        *([] if is_kept else ["", "The outputs were temporary and are gone; --output-dir DIR keeps them."]),
    ]
    emit(facts, lines, as_json=args.json)
    if not facts["ok"]:
        what = "the restored file is not the source" if agrees else "the streamed model writes another text than the loaded one"
        raise CommandError(f"{src}: {what}", Exit.BAD_DATA)
    return Exit.DONE


def _text_lines(text: dict[str, Any] | None, text_needs: str | None, compressed: Path) -> list[str]:
    if text_needs is not None:
        return ["", f"no text: {text_needs}"]
    if text is None:
        return []
    return [
        "",
        f"text from {compressed}",
        f"  loaded whole:   {text['loaded']!r}",
        f"  layer by layer: {text['streamed']!r}",
        "  the same text" if text["loaded"] == text["streamed"] else "  FAIL: not the same text",
    ]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
