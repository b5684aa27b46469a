"""Generate text with a model whose layers stay compressed until they run.

Layers wait in tiers: decoded in the memory of the device that computes (vram), compressed in memory (ram), or compressed on disk
(nvme), in this order as far as the budgets go. The text is that of the model loaded whole, bit for bit."""

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import Any

from ..errors import OptionError
from ..extras import require
from ..stream import BigSmallStreamingModel
from ..stream.memory import forget_peak, peak_resident_set
from ..stream.placement import Tier
from .arguments import add_json, add_source
from .outcome import CommandError, Exit
from .printer import emit


def configure(parser: argparse.ArgumentParser) -> None:
    add_source(parser, ".bs file, compressed directory, or Hub repository")
    parser.add_argument("--config", metavar="DIR", help="folder or repository of configuration and tokenizer; default: beside SRC")
    parser.add_argument("--device", metavar="DEV", default="cpu", help="where the model computes; default: cpu")
    parser.add_argument("--vram-gb", metavar="N", type=_gigabytes, default=0.0, help="memory of the device for layers that stay decoded")
    parser.add_argument("--ram-gb", metavar="N", type=_gigabytes, default=0.0, help="memory for layers that are held compressed")
    parser.add_argument(
        "--pin-layer", metavar="IDX:TIER", type=_pin, action="append", default=[], help="a layer's tier, such as 0:vram; repeatable"
    )
    parser.add_argument(
        "--prefetch", metavar="N", type=_count, nargs="?", const=1, help="decode N layers ahead while others compute; N is 1 if left out"
    )
    parser.add_argument("--decode-threads", metavar="N", type=_count, default=0, help="threads to decode with; default: 0, one per core")
    parser.add_argument("--prompt", metavar="TEXT", help="generate from this text; without it the model is only prepared")
    parser.add_argument("--max-new-tokens", metavar="N", type=_count, default=8, help="tokens to generate; default: 8")
    parser.add_argument("--placement-json", metavar="FILE", type=Path, help="write the tier of each layer to this file")
    add_json(parser)


def run(args: argparse.Namespace) -> Exit:
    torch = require("torch", "torch", "serve-stream")
    transformers = require("transformers", "hf", "serve-stream")
    transformers.utils.logging.set_verbosity_error()
    has_peak = forget_peak()
    started = time.perf_counter()
    try:
        device = torch.device(args.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise CommandError(f"--device {args.device}: {str(error).splitlines()[0]}", Exit.USAGE) from error
    model = BigSmallStreamingModel.from_pretrained(
        args.src if args.src.exists() else str(args.src),
        device,
        config_dir=args.config,
        lru_max_vram_gb=args.vram_gb,
        ram_gb=args.ram_gb,
        pin_layers=dict(args.pin_layer),
        prefetch=args.prefetch,
        threads=args.decode_threads,
    )
    construct_s = time.perf_counter() - started
    facts = {"source": str(args.src), **placement(model), "construct_s": construct_s}
    if args.placement_json is not None:
        args.placement_json.write_text(json.dumps(placement(model), indent=2) + "\n")
    if args.prompt is not None:
        facts |= _generate(model, args)
    before, peak = model.streaming.resident_before_bytes, peak_resident_set()
    facts["rss_peak_growth_bytes"] = peak - before if has_peak and before is not None and peak is not None else None
    model.streaming.close()
    emit(facts, _lines(facts), as_json=args.json)
    return Exit.DONE


def placement(model: Any) -> dict[str, Any]:
    """The layers of a streamed model with their tiers, and what memory its weights take at most."""
    streaming = model.streaming
    layers = [
        {"name": name, "tier": tier.value, "raw_bytes": raw_bytes, "compressed_bytes": compressed_bytes}
        for name, tier, raw_bytes, compressed_bytes in zip(
            streaming.layer_names, streaming.tiers, streaming.raw_bytes, streaming.compressed_bytes, strict=True
        )
    ]
    return {"layers": layers, "memory": {**streaming.memory._asdict(), "bound_bytes": streaming.memory.bound_bytes}}


def _generate(model: Any, args: argparse.Namespace) -> dict[str, Any]:
    import torch
    import transformers

    config_dir = args.config or (args.src if args.src.is_dir() else args.src.parent if args.src.exists() else str(args.src))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(config_dir)
    except (ValueError, OSError) as error:
        raise CommandError(f"{config_dir}: there is no tokenizer; --config names the folder that has it", Exit.FAILED) from error
    tokens = tokenizer(args.prompt, return_tensors="pt").to(model.device)
    started = time.perf_counter()
    with torch.no_grad():
        output = model.generate(**tokens, max_new_tokens=args.max_new_tokens, do_sample=False)
    elapsed_s = time.perf_counter() - started
    n_tokens = output.shape[1] - tokens["input_ids"].shape[1]
    seconds: dict[int, list[float]] = {}
    for layer, decode_s in model.streaming.decodes:
        seconds.setdefault(layer, []).append(decode_s)
    return {
        "output": tokenizer.decode(output[0], skip_special_tokens=True),
        "n_tokens": n_tokens,
        "elapsed_s": elapsed_s,
        "tokens_per_s": n_tokens / elapsed_s,
        "prefetch": model.streaming.prefetch,
        "waited_s": model.streaming.waited_s,
        "decodes": [
            {"layer": layer, "count": len(times), "median_s": statistics.median(times)} for layer, times in sorted(seconds.items())
        ],
        "n_decodes": len(model.streaming.decodes),
        "median_decode_s": statistics.median(time_s for _, time_s in model.streaming.decodes) if model.streaming.decodes else None,
        "kept_layers": model.streaming.kept_layers,
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    def megabytes(count: int) -> str:
        return f"{count / 1e6:,.1f} MB"

    def resident(tier: Tier, key: str) -> str:
        return f"{tier.value} {megabytes(sum(layer[key] for layer in facts['layers'] if layer['tier'] == tier.value))}"

    memory = facts["memory"]
    lines = [
        f"serve-stream: {facts['source']}",
        f"  layers: {len(facts['layers'])}  construct: {facts['construct_s']:.1f}s",
        f"  residency: {resident(Tier.VRAM, 'raw_bytes')} decoded | {resident(Tier.RAM, 'compressed_bytes')}"
        f" | {resident(Tier.NVME, 'compressed_bytes')} compressed",
        f"  memory for weights: at most {megabytes(memory['bound_bytes'])} (non-layer {megabytes(memory['resident_bytes'])}, "
        f"scratch {megabytes(memory['scratch_bytes'])}, kept {megabytes(memory['kept_bytes'])}, held {megabytes(memory['held_bytes'])})",
    ]
    if "output" in facts:
        per_token_s = facts["elapsed_s"] / max(1, facts["n_tokens"])
        lines += [
            f"  output: {facts['output']!r}",
            f"  {facts['n_tokens']} tokens in {facts['elapsed_s']:.1f}s "
            f"({per_token_s:.3f} s/token, {facts['tokens_per_s']:.1f} tok/s; prefetch={facts['prefetch']})",
        ]
        if facts["median_decode_s"] is not None:
            lines.append(f"  per-layer decode: median {facts['median_decode_s'] * 1e3:.1f} ms over {facts['n_decodes']} decodes")
    if facts["rss_peak_growth_bytes"] is not None:
        lines.append(f"  process grew at its peak by: {megabytes(facts['rss_peak_growth_bytes'])}, activations and buffers included")
    return lines


def _gigabytes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of gigabytes")
    return value


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no count")
    return int(text)


def _pin(text: str) -> tuple[int, Tier]:
    index, _, tier = text.partition(":")
    try:
        return int(index), Tier.of(tier)
    except OptionError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no layer and tier, such as 0:vram") from None
