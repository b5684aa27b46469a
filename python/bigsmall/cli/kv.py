"""Caches of keys and values: fit a basis, measure what coding does, look at files.

calibrate fits the basis of a model, once; bench measures times, quality and growth beside other schemes; inspect tells what a basis, a
plan or a saved cache holds."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import add_json
from .outcome import CommandError, Exit
from .printer import emit, n_bytes, table

if TYPE_CHECKING:
    from ..kv.basis import KVBasis
    from ..kv.measure import Quality, Timing

ACTIONS = {
    "calibrate": "fit the basis of a model",
    "bench": "times, quality and growth, beside other schemes",
    "inspect": "what a file holds",
}
TINYLLAMA = (22, 4, 64)


def configure(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, summary in ACTIONS.items():
        action = actions.add_parser(name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False)
        if name == "inspect":
            action.add_argument("src", metavar="SRC", type=Path, help="basis, plan or saved cache")
        else:
            action.add_argument("model", metavar="MODEL", nargs="?", default="demo", help="folder or repository of a model; default: demo")
            action.add_argument(
                "--text", metavar="FILE", type=Path, help="text to run through it; default for demo: Python's documentation"
            )
        if name == "calibrate":
            action.add_argument("-o", "--output", metavar="OUT", type=Path, required=True, help="safetensors file of the basis")
            action.add_argument(
                "--group", metavar="G", default="layer", help="coded together: layer, head, or a number of layers; default: layer"
            )
            action.add_argument("--tokens", metavar="N", type=int, default=50_000, help="tokens to look at; default: 50000")
            action.add_argument("--length", metavar="N", type=int, help="tokens of a sequence; default: 2048, or what the model takes")
            action.add_argument("--force", action="store_true", help="replace an existing output")
        if name == "bench":
            action.add_argument("--times", action="store_true", help="only the times")
            action.add_argument("--runs", metavar="N", type=int, default=5, help="runs whose median is told; default: 5")
            action.add_argument("--sequences", metavar="N", type=int, default=10, help="sequences that quality is measured on; default: 10")
            action.add_argument("--markdown", action="store_true", help="tables as Markdown")
            action.add_argument("--plot", metavar="FILE", type=Path, help="draw quality against bits (needs matplotlib)")
        add_json(action)


def run(args: argparse.Namespace) -> Exit:
    try:
        from .. import kv  # noqa: F401
    except ModuleNotFoundError as error:
        raise CommandError(str(error)) from error
    try:
        return {"calibrate": _calibrate, "bench": _bench, "inspect": _inspect}[args.action](args)
    except ValueError as error:
        raise CommandError(str(error), Exit.USAGE) from error


def _calibrate(args: argparse.Namespace) -> Exit:
    from ..kv import KVCalibrator
    from ..kv.text import load, sequences

    if args.output.exists() and not args.force:
        raise FileExistsError(17, "File exists", str(args.output))
    group = int(args.group) if args.group.isdecimal() else args.group
    model = load(args.model)
    length = args.length or min(2048, model.config.max_position_embeddings)
    ids = sequences(args.model, args.text, args.tokens, length, held_out=False)
    basis = KVCalibrator(model, group=group, max_tokens=args.tokens).run(ids).finish(description=str(args.text or "Python's documentation"))
    basis.save(args.output)
    plan = basis.plan(ratio=10)
    facts = {**_facts_of_basis(basis), "path": str(args.output), "bytes": args.output.stat().st_size, "nmse_at_10x": plan.expected_nmse}
    lines = [
        f"calibrated {args.model} -> {args.output}",
        f"  tokens:       {facts['tokens']:,}",
        f"  basis:        {n_bytes(facts['bytes'])}, {facts['groups']} groups by {facts['grouping']}",
        f"  rotation:     undone in {facts['rotated_layers']} of {facts['layers']} layers",
        f"  at 10x:       expected squared error {plan.expected_nmse:.2g} of the variance",
    ]
    emit(facts, lines, as_json=args.json)
    return Exit.DONE


def _facts_of_basis(basis: "KVBasis") -> dict[str, Any]:
    return {
        "kind": "basis",
        "id": basis.id,
        "layers": basis.n_layers,
        "heads": list(basis.heads),
        "head_dims": list(basis.head_dims),
        "groups": len(basis.groups),
        "grouping": basis.description["group"],
        "tokens": basis.description["n_tokens"],
        "data": basis.description["data"],
        "rotated_layers": sum(1 for table in basis.rope if table.rotary_dim),
    }


def _inspect(args: argparse.Namespace) -> Exit:
    from ..errors import FormatError

    with args.src.open("rb") as file:
        magic = file.read(4)
    if magic == b"KVTX":
        facts = _facts_of_cache(args.src)
    else:
        try:
            from ..kv import KVBasis

            facts = _facts_of_basis(KVBasis.load(args.src))
        except FormatError as error:
            try:
                facts = _facts_of_plan(args.src)
            except FormatError:
                raise error from None
    lines = [
        f"{args.src}: {facts['kind']}",
        *(f"  {key.replace('_', ' ') + ':':<18}{value}" for key, value in facts.items() if key not in ("kind", "sections")),
    ]
    for name, one in facts.get("sections", {}).items():
        lines.append(f"  {name + ':':<18}{one['sections']:,} sections, {n_bytes(one['bytes'])}")
    emit({"path": str(args.src), **facts}, lines, as_json=args.json)
    return Exit.DONE


def _facts_of_plan(path: Path) -> dict[str, Any]:
    from ..kv import KVPlan

    plan = KVPlan.load(path)
    return {
        "kind": "plan",
        "id": plan.id,
        "basis": plan.basis_id,
        "mode": plan.mode,
        "quantiser": plan.quantiser,
        "expected_bits": None if math.isnan(plan.expected_bits) else round(plan.expected_bits, 4),
        "expected_nmse": plan.expected_nmse,
        "components": sum(len(group.kept) for group in plan.groups),
    }


def _facts_of_cache(path: Path) -> dict[str, Any]:
    from .._core import KvReader

    reader = KvReader(path)
    header = reader.header
    layers = header.pop("layers")
    names = {0: "exact", 2: "packed", 3: "coded", 5: "int8"}
    sections: dict[str, dict[str, int]] = {}
    for (kind, *_), body_bytes in reader.sections():
        one = sections.setdefault(names[kind], {"sections": 0, "bytes": 0})
        one["sections"] += 1
        one["bytes"] += body_bytes
    width = {"BF16": 2, "F16": 2, "F32": 4}[header["dtype"]]
    raw = sum(2 * width * header["batch"] * layer["heads"] * layer["head_dim"] * layer["tokens"] for layer in layers)
    size = path.stat().st_size
    return {
        "kind": "saved cache" + (" (lossy)" if header["lossy"] else " (lossless)"),
        **header,
        "layers": len(layers),
        "tokens": max((layer["tokens"] for layer in layers), default=0),
        "raw_bytes": raw,
        "bytes": size,
        "ratio": round(raw / size, 2),
        "sections": sections,
    }


def _bench(args: argparse.Namespace) -> Exit:
    from transformers import LlamaConfig

    from ..kv import KVCalibrator
    from ..kv.measure import Shape, as_facts, growth, measure_quality, measure_times, synthetic_cache
    from ..kv.rivals import all_rivals
    from ..kv.text import load, sequences

    layers, heads, head_dim = TINYLLAMA
    shape = Shape(layers, heads, head_dim)
    config = LlamaConfig(hidden_size=2048, num_attention_heads=32, num_key_value_heads=heads, num_hidden_layers=layers, head_dim=head_dim)
    timings = {
        "entropy-coded, step 0.5": measure_times(config, shape, 1024, wish={"step": 0.5}, runs=args.runs),
        "fixed min-max, 5.6 bits": measure_times(
            config, shape, 1024, wish={"bits": 5.6, "mode": "fixed", "method": "greedy"}, runs=args.runs, reference_sections=0
        ),
    }
    facts: dict[str, Any] = {"times": {name: as_facts([timing])[0] for name, timing in timings.items()}}
    lines = [*_times(timings, args.markdown)]
    if not args.times:
        model = load(args.model)
        length = min(model.config.max_position_embeddings, 1024)
        training = list(sequences(args.model, args.text, 100 * length, length, held_out=False))
        held_out = list(sequences(args.model, args.text, args.sequences * length, length, held_out=True))
        sink, window, scored = 4, length // 16, length // 4
        groups: list[tuple[str, Any]] = [("head", "head"), ("layer", "layer"), ("all layers", model.config.num_hidden_layers)]
        bases = {name: KVCalibrator(model, group=group, sink=sink).run(training).finish() for name, group in groups}
        sample = _sample(model, training[0], sink)
        rows = [
            measure_quality(model, held_out, rival, scored=scored, sink=sink, window=window) for rival in all_rivals(bases, sample, sink)
        ]
        basis = KVCalibrator(config).observe(synthetic_cache(shape, 4096, 1)).finish()
        ladder = growth(config, shape, basis, basis.plan(step=0.5))
        facts |= {"model": args.model, "sequences": len(held_out), "quality": as_facts(rows), "growth": ladder}
        lines += ["", *_quality(rows, args.markdown), "", *_equal(rows), "", *_growth(ladder, args.markdown)]
        if args.plot:
            _draw(rows, args.plot)
    emit(facts, lines, as_json=args.json)
    return Exit.DONE


def _sample(model: Any, ids: Any, sink: int) -> Any:
    import torch

    from ..kv.states import layer_pairs

    with torch.no_grad():
        pairs = layer_pairs(model(ids, use_cache=True).past_key_values)
    return [(keys[:, :, sink:].float(), values[:, :, sink:].float()) for keys, values in pairs]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool, left: int = 1) -> list[str]:
    if not markdown:
        return table(header, rows, left=left)
    marks = [":--"] * left + ["--:"] * (len(header) - left)
    return ["| " + " | ".join(row) + " |" for row in (header, marks, *rows)]


def _times(timings: "dict[str, Timing]", markdown: bool) -> list[str]:
    rows = []
    for name, timing in timings.items():
        for what, total, stages in (
            ("compress", timing.compress_ms, timing.compress_stages),
            ("decompress", timing.decompress_ms, timing.decompress_stages),
        ):
            rate = timing.raw_bytes / total / 1000
            rows.append((f"{name}: {what}", "all", f"{total:.0f}", "100", f"{rate:.0f}"))
            rows += [("", stage, f"{ms:.0f}", f"{100 * ms / total:.0f}", "") for stage, ms in stages.items()]
            rest = total - sum(stages.values())
            rows.append(("", "between them", f"{rest:.0f}", f"{100 * rest / total:.0f}", ""))
    first = next(iter(timings.values()))
    speed_ups = (first.reference_compress_ms / first.compress_ms, first.reference_decompress_ms / first.decompress_ms)
    reference_s = (first.reference_compress_ms / 1000, first.reference_decompress_ms / 1000)
    return [
        *_table(("1024 tokens, 22 layers x 4 heads x 64", "stage", "ms", "%", "MB/s"), rows, markdown, 2),
        "",
        f"The plain reference takes {reference_s[0]:.0f} s to compress and {reference_s[1]:.0f} s to decompress"
        f" ({first.reference_sections} of {first.sections} sections run): {speed_ups[0]:.0f}x and {speed_ups[1]:.0f}x.",
    ]


def _quality(rows: "Sequence[Quality]", markdown: bool) -> list[str]:
    cells = [
        (
            row.name,
            row.transform,
            f"{row.bits:.3f}",
            f"{row.ratio:.1f}",
            f"{row.whole_ratio:.1f}",
            f"{row.nmse_keys:.2g}",
            f"{row.nmse_values:.2g}",
            f"{row.cosine:.6f}",
            f"{row.kl:.2g}",
            f"{100 * row.agreement:.1f}%",
        )
        for row in rows
    ]
    header = ("scheme", "transform", "bits", "ratio", "whole cache", "NMSE K", "NMSE V", "cosine", "KL (nats)", "same token")
    return _table(header, cells, markdown, 2)


def _equal(rows: "Sequence[Quality]") -> list[str]:
    """At the divergence of each of our rows: bits of the other families."""
    from ..kv.measure import bits_at_equal_kl

    lines = []
    for family, transform in (("fixed min-max + zlib", "head"), ("DP blocks + zlib", "layer"), ("DP blocks + zlib", "all layers")):
        theirs = [row for row in rows if row.name.startswith(family) and row.transform == transform]
        factors = [
            found / row.bits
            for row in rows
            if row.name.startswith("bigsmall") and row.transform == transform and (found := bits_at_equal_kl(theirs, row.kl)) is not None
        ]
        if factors:
            lines.append(f"At equal divergence {family} ({transform}) needs {min(factors):.2f} to {max(factors):.2f} times the bits.")
    return lines or ["No two families of schemes overlap in divergence."]


def _growth(ladder: Sequence[dict[str, Any]], markdown: bool) -> list[str]:
    cells = [
        (
            f"{row['tokens']:,}",
            f"{row['analytic_bytes']:,}",
            f"{row['measured_bytes']:,}",
            f"{row['int8_bytes']:,}",
            f"{row['coded_bytes']:,}",
            f"{row['ratio']:.1f}",
            f"{row['resident_growth_bytes']:,}",
        )
        for row in ladder
    ]
    return _table(
        ("tokens", "BF16, computed", "BF16, measured", "int8", "coded, all of it", "ratio", "process grown by"), cells, markdown, 0
    )


def _draw(rows: "Sequence[Quality]", path: Path) -> None:
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError as error:
        raise CommandError("a plot needs matplotlib: pip install matplotlib") from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    axes = figure.subplots()
    families: dict[str, list[Quality]] = {}
    for row in rows:
        families.setdefault(f"{row.name.split(',')[0]} ({row.transform})", []).append(row)
    for name, members in families.items():
        members.sort(key=lambda row: row.bits)
        is_ours = name.startswith("bigsmall")
        axes.plot(
            [row.bits for row in members],
            [max(row.kl, 1e-9) for row in members],
            "o-" if is_ours else "s--",
            label=name,
            lw=2.5 if is_ours else 1.2,
        )
    axes.set(xscale="log", yscale="log", xlabel="bits an element of the coded tokens", ylabel="KL divergence of the next tokens, nats")
    axes.grid(True, which="both", alpha=0.25)
    axes.legend(fontsize=8)
    axes.set_title("Smaller and truer is towards the lower left")
    figure.savefig(path)
