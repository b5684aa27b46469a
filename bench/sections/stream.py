"""Text from a model that is decoded layer by layer, beside the same model loaded whole."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import child
import footprint
import inputs
from sections.load import evict

if TYPE_CHECKING:
    from results import Facts
    from run import Run

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "dtype": "bfloat16",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_attention_heads": 16,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 32000,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": None,
}
N_LAYERS = 11
"""Of 90 MB each; with embeddings and head, 1.25 GB."""

PROMPT_TOKENS = 8
TOKENS = 12
ROUNDS = 3
"""Every way in turn, so that a slow minute of the machine is no way's alone; the fastest counts."""

SPEED_AIM = 0.4
"""Of the whole model's tokens a second, the file being in memory."""
DISK_AIM = 0.9
"""Of what the disk reads, the file being on it."""
ROOM_BYTES = 200_000_000
"""What may be resident beside the tensors of no layer and two layers."""


class Way(NamedTuple):
    """How the model runs; `kept_bytes` is the budget for decoded layers."""

    key: str
    label: str
    streams: bool = True
    kept_bytes: int = 0
    prefetch: int | None = None
    compressed_in: str = "page-cache"


def ways(layer_bytes: int) -> tuple[Way, ...]:
    """Those whose speed and memory are compared."""
    # One layer of the two is scratch memory.
    kept = layer_bytes + ROOM_BYTES - 60_000_000
    return (
        Way("whole", "loaded whole", streams=False),
        Way("streamed", "streamed"),
        Way("ahead", "streamed, a layer ahead", prefetch=1),
        Way("kept", f"streamed, {kept // 10**6} MB for layers that stay", kept_bytes=kept),
        Way("held", "streamed, the file held in memory", compressed_in="ram"),
        Way("disk", "streamed, the file on disk", compressed_in="disk"),
    )


class Row(NamedTuple):
    """`facts` has `tokens_per_s`, `grown_bytes` and `bound_bytes`."""

    way: Way
    facts: Facts


class Rows(NamedTuple):
    rows: list[Row]
    non_layer_bytes: int
    layer_bytes: int
    disk_tokens_per_s: float | None
    """If layers came as fast as the disk reads and computing took no time."""


def measure(run: Run) -> Rows:
    n_layers = 3 if run.quick else N_LAYERS
    with tempfile.TemporaryDirectory(dir=run.scratch) as directory:
        folder = Path(directory, "model")
        facts = run.results.once(f"stream/{n_layers} layers", compare, folder, n_layers)
    if "error" in facts:
        return Rows([Row(Way("whole", "the model"), facts)], 0, 0, None)
    rows = [Row(way, facts["ways"][way.key]) for way in ways(facts["layer_bytes"])]
    return Rows(rows, facts["non_layer_bytes"], facts["layer_bytes"], facts["disk_tokens_per_s"])


def compare(folder: Path, n_layers: int) -> Facts:
    make(folder, n_layers)
    packed = folder.with_name("packed")
    child.call("sections.stream:pack", {"model": str(folder), "packed": str(packed)})
    layer_bytes, non_layer_bytes = sizes(n_layers)
    best: dict[str, Facts] = {}
    for _ in range(ROUNDS):
        for way in ways(layer_bytes):
            facts = child.call("sections.stream:clock", {"path": str(packed), **way._asdict()})
            known = best.setdefault(way.key, facts)
            known["tokens_per_s"] = max(known["tokens_per_s"], facts["tokens_per_s"])
            if facts["tokens"] != best["whole"]["tokens"]:
                raise OSError(f"{way.label}: the text is not that of the whole model")
    file = packed / "model.bs"
    streamed_bytes = file.stat().st_size * layer_bytes * n_layers / (layer_bytes * n_layers + non_layer_bytes)
    rate = max(disk_rate(file) for _ in range(ROUNDS))
    shutil.rmtree(packed)
    return {
        "ways": best,
        "layer_bytes": layer_bytes,
        "non_layer_bytes": non_layer_bytes,
        "disk_bytes_per_s": rate,
        "disk_tokens_per_s": rate / streamed_bytes,
    }


def layer_shapes() -> dict[str, tuple[int, ...]]:
    width, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    keys = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    return {
        "self_attn.q_proj": (width, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, width),
        "mlp.gate_proj": (inner, width),
        "mlp.up_proj": (inner, width),
        "mlp.down_proj": (width, inner),
        "input_layernorm": (width,),
        "post_attention_layernorm": (width,),
    }


def other_shapes() -> dict[str, tuple[int, ...]]:
    table = (CONFIG["vocab_size"], CONFIG["hidden_size"])
    return {"model.embed_tokens.weight": table, "model.norm.weight": table[1:], "lm_head.weight": table}


def sizes(n_layers: int) -> tuple[int, int]:
    """Bytes of a layer, and of what is in none."""

    def n_bytes(shapes: dict[str, tuple[int, ...]]) -> int:
        return sum(2 * shape[0] * (shape[1] if len(shape) > 1 else 1) for shape in shapes.values())

    return n_bytes(layer_shapes()), n_bytes(other_shapes())


def make(folder: Path, n_layers: int) -> None:
    """A folder with configuration and drawn weights."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({**CONFIG, "num_hidden_layers": n_layers}))
    layers = {f"model.layers.{i}.{name}.weight": shape for i in range(n_layers) for name, shape in layer_shapes().items()}
    inputs.write_normal(folder / "model.safetensors", {**other_shapes(), **layers})


def pack(model: str, packed: str) -> Facts:
    import bigsmall

    return bigsmall.compress(model, packed)


def clock(path: str, streams: bool, kept_bytes: int, prefetch: int | None, compressed_in: str, **_: object) -> Facts:
    """Tokens a second once the first are through, the text, and by how much the process's memory grew over what it was without weights."""
    import bigsmall
    import bigsmall.stream.model
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    # All packages are imported before memory is looked at.
    tiny = transformers.LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=1, vocab_size=64)
    transformers.LlamaForCausalLM(tiny).generate(torch.ones(1, 2, dtype=torch.long), max_new_tokens=2)
    # 5 resets the high-water mark.
    Path("/proc/self/clear_refs").write_text("5")
    before = footprint.resident("self", "VmRSS")
    if streams:
        model = bigsmall.BigSmallStreamingModel.from_pretrained(
            path, lru_max_vram_gb=kept_bytes / 1e9, prefetch=prefetch, compressed_in=compressed_in
        )
        bound = model.streaming.memory.bound_bytes
    else:
        model = bigsmall.load_model(path)
        bound = sum(parameter.nbytes for parameter in model.parameters())
    prompt = torch.arange(1, 1 + PROMPT_TOKENS).view(1, -1)
    model.generate(prompt, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    times = []
    tokens: list[int] = []
    for _ in range(2):
        start = time.perf_counter()
        tokens = model.generate(prompt, max_new_tokens=TOKENS, min_new_tokens=TOKENS, do_sample=False)[0].tolist()
        times.append(time.perf_counter() - start)
    grown = footprint.resident("self", "VmHWM") - before
    return {
        "tokens_per_s": TOKENS / min(times),
        "tokens": tokens,
        "grown_bytes": grown,
        "bound_bytes": bound,
        "decode_s": statistics.median(seconds for _, seconds in model.streaming.decodes) if streams else None,
    }


def disk_rate(file: Path) -> float:
    """Bytes a second of a plain sequential read of a file that is not in the page cache."""
    evict(file)
    piece = bytearray(8 * inputs.MIB)
    start = time.perf_counter()
    descriptor = os.open(file, os.O_RDONLY)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
    n_bytes = 0
    while n := os.readv(descriptor, [piece]):
        n_bytes += n
    os.close(descriptor)
    return n_bytes / (time.perf_counter() - start)
