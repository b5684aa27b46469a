"""The demo model as transformers runs it, and text that it was not trained on."""

import hashlib
import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM

ROOT = Path(__file__).parent.parent
DATA = ROOT / "python" / "bigsmall" / "data"
CONTEXT = 256


@cache
def demo_model() -> LlamaForCausalLM:
    """Four layers of two K/V heads of 32, F32."""
    config = LlamaConfig.from_pretrained(DATA)
    model = LlamaForCausalLM(config)
    model.load_state_dict({name: tensor.float() for name, tensor in load_file(DATA / "demo.safetensors").items()})
    return model.eval()


@cache
def tokens(held_out: bool) -> torch.Tensor:
    """Bytes of Python's documentation, as the demo model's tokens."""
    corpus = trainer().read_corpus()
    return (corpus.held_out if held_out else corpus.train).long()


@cache
def trainer() -> ModuleType:
    path = ROOT / "tools" / "train_demo_model.py"
    spec = importlib.util.spec_from_file_location("train_demo_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def batches(n: int, held_out: bool = False, seed: int = 0) -> list[torch.Tensor]:
    """`n` batches of one sequence of the model's context each."""
    text = tokens(held_out)
    starts = torch.randint(0, len(text) - CONTEXT, (n,), generator=torch.Generator().manual_seed(seed))
    return [text[start : start + CONTEXT][None] for start in starts.tolist()]


@cache
def demo_basis(group: Any = "layer", n: int = 40) -> Any:
    """A basis fitted on training text."""
    from bigsmall.kv import KVCalibrator

    return KVCalibrator(demo_model(), group=group).run(batches(n)).finish(description="Python's documentation")


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
