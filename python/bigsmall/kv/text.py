"""Models and text for calibrating and measuring."""

import hashlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import torch

DEMO = "demo"
HELD_OUT_ONE_IN = 16
"""One page of the demo's text in so many was kept out of its training, by a hash of its name."""


def load(model: str) -> Any:
    """A transformers model, for evaluation: "demo" for the package's own, else what `bigsmall.load_model` or transformers opens."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    # Bars are for what takes long, and on a terminal.
    logging.disable_progress_bar()

    if model == DEMO:
        with resources.as_file(resources.files("bigsmall") / "data") as directory:
            return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    if Path(model).is_file() or any(Path(model).glob("*.bs")):
        from ..pretrained import load_model

        return load_model(model).eval()
    return AutoModelForCausalLM.from_pretrained(model).eval()


def sequences(model: str, text: Path | None, n_tokens: int, length: int, *, held_out: bool) -> Iterator[torch.Tensor]:
    """Token ids `[1, length]`, `n_tokens` of them in all, in order. The demo model reads bytes, by default of Python's documentation;
    others need a text. ValueError if it is too
    short, or absent."""
    if text is None and model != DEMO:
        raise ValueError("a model other than the demo needs a text: give a file")
    if model == DEMO:
        content = _python_pages(held_out) if text is None else text.read_bytes()
        ids = torch.frombuffer(bytearray(content), dtype=torch.uint8).long()
    else:
        from transformers import AutoTokenizer

        assert text is not None
        ids = torch.tensor(AutoTokenizer.from_pretrained(model)(text.read_text())["input_ids"])
    if len(ids) < length:
        raise ValueError(f"the text has {len(ids)} tokens, {length} are needed")
    for i in range(min(n_tokens, len(ids)) // length):
        yield ids[i * length : (i + 1) * length][None]


def _python_pages(held_out: bool) -> bytes:
    from pydoc_data.topics import topics

    def is_held_out(name: str) -> bool:
        return hashlib.sha256(f"topic {name}".encode()).digest()[0] % HELD_OUT_ONE_IN == 0

    pages = [f"{name}\n\n{page.strip()}\n" for name, page in sorted(topics.items()) if is_held_out(name) == held_out]
    return "\0".join(pages).encode()
