"""Measurements as Markdown. Every function takes what a section's `measure` gives."""

from __future__ import annotations

import re
from itertools import groupby
from statistics import median
from typing import TYPE_CHECKING

from inputs import MIB
from rivals import published as published_rival
from sections import codec, comparison, delta, load, memory, published, sizes, speed, startup, stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from results import Facts

LEFT, RIGHT = ":--", "--:"

NOTHING = "\N{EN DASH}"

COMPARED = "MiniLM-L6 cast to BF16"
"""The input whose speeds stand in the comparison of the two packages."""

ISA_NAMES = {"avx512": "AVX-512", "avx2": "AVX2", "neon": "NEON", "scalar": "scalar"}


def table(head: Sequence[str], rows: Iterable[Sequence[str]], n_left: int = 1) -> str:
    """A table whose first `n_left` columns hold words and the others numbers."""
    lines = [head, [LEFT] * n_left + [RIGHT] * (len(head) - n_left), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def percent(part: int | None, whole: int) -> str:
    return NOTHING if part is None else f"{100 * part / whole:.2f}"


def rate(n_bytes: float, seconds: float) -> str:
    """MB/s, with three digits at least where there are that many."""
    value = n_bytes / seconds / 1e6
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def mib(n_bytes: float) -> str:
    return f"{n_bytes / MIB:,.0f}"


def not_measured(failures: Iterable[tuple[str, Facts]]) -> str:
    """A line for each measurement that failed, so that none is silently absent."""
    return "".join(f"\n\nNot measured: {label} ({facts['error']})." for label, facts in failures if "error" in facts)


def verdict(missed: Sequence[str]) -> str:
    return f"Aims missed: {'; '.join(missed)}." if missed else "Every aim in this table is reached."


def machine(facts: dict[str, str]) -> str:
    return table(("", ""), facts.items(), n_left=2)


def size_table(rows: Sequence[sizes.Row], total: sizes.Row | None = None) -> str:
    head = (
        "input",
        "raw bytes",
        "published 4.0.0, %",
        "balanced, %",
        "aim",
        "storage, %",
        "aim",
        "balanced below published by",
        "storage below published by",
    )
    body = map(size_cells, rows if total is None else [*rows, total])
    return f"{table(head, body)}\n\n{size_verdict(rows)}"


def size_cells(row: sizes.Row) -> tuple[str, ...]:
    shares = []
    for mode in sizes.MODES:
        shares += [percent(row.bytes.get(mode), row.raw_bytes), f"{getattr(row.aim, mode):.2f}" if row.aim else ""]
    differences = [below(row.bytes.get(mode), row.published_bytes) for mode in sizes.MODES]
    return (row.label, f"{row.raw_bytes:,}", percent(row.published_bytes, row.raw_bytes), *shares, *differences)


def below(n_bytes: int | None, published_bytes: int | None) -> str:
    """By how much a size is smaller than the published package's, of which it is a percentage."""
    return NOTHING if n_bytes is None or published_bytes is None else f"{100 - 100 * n_bytes / published_bytes:.2f} %"


def size_verdict(rows: Sequence[sizes.Row]) -> str:
    """What is larger than the published package's file, and what misses its aim. What was not measured counts as both."""
    larger, missed = [], []
    for row in rows:
        for mode in sizes.MODES:
            n_bytes = row.bytes.get(mode)
            if row.published_bytes is not None and (n_bytes is None or n_bytes >= row.published_bytes):
                larger.append(f"{row.label} ({mode})")
            if row.aim and (n_bytes is None or round(100 * n_bytes / row.raw_bytes, 2) > getattr(row.aim, mode)):
                missed.append(f"{row.label}, {mode}: {percent(n_bytes, row.raw_bytes)} instead of {getattr(row.aim, mode):.2f}")
    compared = sum(row.published_bytes is not None for row in rows)
    saved = f"All {compared} with a size of the published package's are smaller here in both modes."
    compared_here = f"Not smaller than the published package's: {'; '.join(larger)}." if larger else saved
    return f"{compared_here} {verdict(missed)}"


def codec_table(rows: Sequence[codec.Row]) -> str:
    head = ("input", "instruction set", "mode", "size, %", "encode, MB/s", "aim", "decode, MB/s", "aim")
    body, missed = [], []
    for row in rows:
        if "error" in row.facts:
            continue
        facts = row.facts
        aim = codec.AIMS.get(row.isa) if row.kind.key == "normal" and row.mode == "balanced" else None
        body.append(
            (
                row.kind.label,
                ISA_NAMES[row.isa],
                row.mode,
                percent(facts["bytes"], facts["raw_bytes"]),
                rate(facts["raw_bytes"], facts["encode_s"]),
                rate(aim.encode, 1) if aim and aim.encode else "",
                rate(facts["raw_bytes"], facts["decode_s"]),
                rate(aim.decode, 1) if aim else "",
            )
        )
        for step in ("encode", "decode") if aim else ():
            reached, wanted = facts["raw_bytes"] / facts[f"{step}_s"], getattr(aim, step)
            if wanted is not None and reached < wanted:
                missed.append(f"{step} with {ISA_NAMES[row.isa]}, {rate(reached, 1)} instead of {rate(wanted, 1)} MB/s")
    page = f"{table(head, body, n_left=3)}\n\n{verdict(missed)}"
    return page + not_measured((f"{row.kind.label}, {ISA_NAMES[row.isa]} {row.mode}", row.facts) for row in rows)


def speed_tables(rows: Sequence[speed.Row]) -> str:
    head = ("", "size, %", "encode, MB/s", "decode, MB/s", "load, MB/s", "encode takes, MiB", "decode takes, MiB")
    parts = []
    for kind, group in groupby(rows, lambda row: row.kind):
        members = list(group)
        measured = [row for row in members if "error" not in row.facts]
        body = [
            (
                row.label,
                percent(row.facts["bytes"], row.facts["raw_bytes"]),
                *(rate(row.facts["raw_bytes"], row.facts[f"{step}_s"]) for step in ("encode", "decode", "load")),
                *(mib(row.facts[f"{step}_peak_bytes"]) for step in ("encode", "decode")),
            )
            for row in measured
        ]
        raw_bytes = f" ({measured[0].facts['raw_bytes'] / 1e6:,.1f} MB)" if measured else ""
        parts.append(f"### {kind.label}{raw_bytes}\n\n{table(head, body)}{not_measured((row.label, row.facts) for row in members)}")
    return "\n\n".join(parts)


def update_table(rows: Sequence[delta.UpdateRow]) -> str:
    head = ("update", "weights that change, %", "bits per weight", "aim", "encode, MB/s", "decode, MB/s")
    body, missed = [], []
    for row in rows:
        if "error" in row.facts:
            continue
        facts = row.facts
        rates = [facts[f"{step}_bytes_per_s"] for step in ("encode", "decode")]
        bits = facts["bits_per_weight"]
        body.append(
            (row.update.label, f"{100 * facts['changed']:.1f}", f"{bits:.3f}", f"{row.update.aim:.2f}", *(rate(one, 1) for one in rates))
        )
        if bits > row.update.aim:
            missed.append(f"{row.update.label}: {bits:.3f} bits instead of {row.update.aim:.2f}")
        missed += [
            f"{row.update.label}: {rate(one, 1)} instead of {rate(delta.SPEED_AIM, 1)} MB/s" for one in rates if one < delta.SPEED_AIM
        ]
    return f"{table(head, body)}\n\n{verdict(missed)}" + not_measured((row.update.label, row.facts) for row in rows)


def pair_table(rows: Sequence[delta.PairRow]) -> str:
    names = {
        "bigsmall": "patch, %",
        "alone": "alone, %",
        "published": "published 4.0.0, %",
        "zipnn": "ZipNN, %",
        "zstd": "zstd patch-from, %",
    }
    if not rows:
        return "The files are not beside the repository."
    head = ("base and fine-tune", "raw bytes", *names.values())
    body = [(row.label, f"{row.raw_bytes:,}", *(percent(row.bytes[name], row.raw_bytes) for name in names)) for row in rows]
    larger = [
        row.label
        for row in rows
        for name in names
        if row.bytes["bigsmall"] is None or (row.bytes[name] or row.bytes["bigsmall"]) < row.bytes["bigsmall"]
    ]
    told = f"Larger than another: {'; '.join(larger)}." if larger else "Every patch is the smallest of its row."
    return f"{table(head, body)}\n\n{told}"


def load_tables(rows: Sequence[load.Row]) -> str:
    head = ("", "file, MB", "best, ms", "median, ms", "times as fast as safetensors: best", "median")
    (reference,) = (row for row in rows if row.reader is load.SAFETENSORS)
    parts = []
    for state, aim in load.AIMS.items():
        body, missed = [], []
        for row in rows:
            if "error" in row.facts[state] or "error" in reference.facts[state]:
                continue
            times, baseline = row.facts[state]["times_s"], reference.facts[state]["times_s"]
            ratio = min(baseline) / min(times)
            if row.reader is load.BIGSMALL and ratio < aim:
                missed.append(f"{ratio:.2f} times as fast as safetensors instead of {aim}")
            body.append(
                (
                    row.reader.label,
                    f"{row.facts[state]['bytes'] / 1e6:,.0f}",
                    *(f"{1e3 * seconds:,.0f}" for seconds in (min(times), median(times))),
                    *(f"{quotient:.2f}" for quotient in (ratio, median(baseline) / median(times))),
                )
            )
        failures = not_measured((row.reader.label, row.facts[state]) for row in rows)
        parts.append(f"### From {state}\n\n{table(head, body)}\n\n{verdict(missed)}{failures}")
    return "\n\n".join(parts)


def published_table(rows: Sequence[published.Row]) -> str:
    head = ("model", "MB", "file, MB", "published package, MB/s", "bigsmall, MB/s", "times as fast", "one thread, MB/s", "times as fast")
    body, missed = [], []
    for dtype, facts in rows:
        if "error" in facts:
            continue
        ratio, ratio_1 = (facts["theirs_s"] / facts[key] for key in ("ours_s", "ours_1_s"))
        if ratio < published.AIM:
            missed.append(f"{dtype}, {ratio:.1f} times as fast instead of {published.AIM:.0f}")
        speeds = [rate(facts["raw_bytes"], facts[key]) for key in ("theirs_s", "ours_s", "ours_1_s")]
        sizes = [f"{facts[key] / 1e6:,.0f}" for key in ("raw_bytes", "bytes")]
        body.append((dtype, *sizes, speeds[0], speeds[1], f"{ratio:.1f}", speeds[2], f"{ratio_1:.1f}"))
    return f"{table(head, body)}\n\n{verdict(missed)}{not_measured((row.dtype, row.facts) for row in rows)}"


def comparison_table(rows: Sequence[comparison.Row], page: str) -> str:
    """Both packages, question by question. Sizes and speeds are what other tables of the page say."""
    head = ("", "what is asked", "published 4.0.0", "bigsmall")
    asked = [(row.group, row.question, row.published or NOTHING, row.own or NOTHING) for row in rows]
    body: list[tuple[str, ...]] = []
    for group, members in groupby([*asked, *figures(page)], lambda row: row[0]):
        body += ((group if i == 0 else "", *row[1:]) for i, row in enumerate(members))
    return table(head, body, n_left=4)


def figures(page: str) -> Iterator[tuple[str, str, str, str]]:
    """Sizes, speeds and times that the page has of both packages, as far as they were measured."""
    theirs, own = published_rival.RIVAL.settings[0].label, "bigsmall balanced"
    for row in lines_of(page, "sizes of models"):
        yield "size", f"{row[0]}, % of it", row[2], row[3]
    for row in lines_of(page, "sizes of files"):
        if row[0].startswith("all "):
            yield "size", f"real checkpoints, {row[0]}, % of them", row[2], row[3]
    (speeds,) = re.findall(rf"### ({re.escape(COMPARED)} .*?)(?:###|<!--)", page, re.DOTALL) or [""]
    by_label = {row[0]: row for row in cells(speeds)}
    for column, what in ((2, "compress"), (3, "restore"), (4, "load")):
        if theirs in by_label and own in by_label:
            question = f"{what} {COMPARED}, one thread, in memory, MB/s"
            yield "speed", question, by_label[theirs][column], by_label[own][column]
    for row in lines_of(page, "published"):
        yield "speed", f"decode {row[0]} of the published package's own making, MB/s", row[3], row[4]
    starts = {row[0]: row[2] for row in lines_of(page, "startup")}
    if {theirs, "bigsmall"} <= starts.keys():
        yield "speed", "`import bigsmall`, ms", starts[theirs], starts["bigsmall"]


def lines_of(page: str, name: str) -> list[list[str]]:
    (part,) = re.findall(rf"<!-- begin {name} -->(.*?)<!-- end {name} -->", page, re.DOTALL)
    return cells(part)


def cells(text: str) -> list[list[str]]:
    """The rows of the first table in a text, its head left out."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    return rows[2:]


def memory_table(rows: Sequence[memory.Row]) -> str:
    head = ("model, GiB", "mode", "step", "seconds", "private memory at most, MiB", "aim", "resident at most, MiB")
    body, missed = [], []
    for row in rows:
        for step in ("compress", "decompress", "load") if "error" not in row.facts else ():
            facts = row.facts[step]
            private, aim, name = facts["peak_private_bytes"], memory.FILE_AIM_BYTES, f"{step} to a file"
            if step == "load":
                private -= facts["tensor_bytes"] + facts["private_before_bytes"]
                aim, name = memory.LOAD_AIM_BYTES, "load, beyond the tensors"
            if private >= aim:
                missed.append(f"{name} in mode {row.case.mode}, {mib(private)} instead of {mib(aim)} MiB")
            size = f"{row.facts['model_bytes'] / 2**30:.2f}"
            seconds, resident = f"{facts['seconds']:.1f}", mib(facts["peak_resident_bytes"])
            body.append((size, row.case.mode, name, seconds, mib(private), f"< {mib(aim)}", resident))
    failures = not_measured((f"the {row.case.mode} model", row.facts) for row in rows)
    return f"{table(head, body, n_left=3)}\n\n{verdict(missed)}{failures}"


def stream_table(measured: stream.Rows) -> str:
    whole = measured.rows[0].facts
    if "error" in whole:
        return not_measured([("the model", whole)]).strip()
    head = ("the model", "tokens/s", "of whole, %", "aim", "weights at most, MB", "process grew by, MB", "aim", "a layer decodes in, ms")
    room = measured.non_layer_bytes + 2 * measured.layer_bytes + stream.ROOM_BYTES
    body, missed = [], []
    for way, facts in measured.rows:
        share = facts["tokens_per_s"] / whole["tokens_per_s"]
        grown, bound = facts["grown_bytes"], facts["bound_bytes"]
        of_memory = way.streams and way.compressed_in != "disk"
        needs_room = way.streams and way.compressed_in != "ram"
        decode = f"{1e3 * facts['decode_s']:.1f}" if facts["decode_s"] else ""
        aims = f"{100 * stream.SPEED_AIM:.0f}" if of_memory else "", f"< {room / 1e6:,.0f}" if needs_room else ""
        cells = f"{facts['tokens_per_s']:.2f}", f"{100 * share:.0f}", aims[0], f"{bound / 1e6:,.0f}", f"{grown / 1e6:,.0f}", aims[1], decode
        body.append((way.label, *cells))
        if of_memory and share < stream.SPEED_AIM:
            missed.append(f"{way.label}: {100 * share:.0f} instead of {100 * stream.SPEED_AIM:.0f} %")
        if needs_room and grown > room:
            missed.append(f"{way.label}: {grown / 1e6:,.0f} MB instead of {room / 1e6:,.0f}")
    on_disk = next(facts for way, facts in measured.rows if way.compressed_in == "disk")
    of_disk = on_disk["tokens_per_s"] / measured.disk_tokens_per_s
    if of_disk < stream.DISK_AIM:
        missed.append(f"from disk: {100 * of_disk:.0f} instead of {100 * stream.DISK_AIM:.0f} % of its speed")
    disk = f"Read from beginning to end, the disk gives the layers for {measured.disk_tokens_per_s:.2f} tokens a second."
    return f"{table(head, body)}\n\n{disk} {verdict(missed)}"


def startup_table(rows: Sequence[startup.Row]) -> str:
    head = ("`import` of", "best, ms", "median, ms", "aim")
    body, missed = [], []
    for row in rows:
        if "error" in row.facts:
            continue
        best, median_ms = (f"{1e3 * row.facts[f'{summary}_s']:.1f}" for summary in ("best", "median"))
        body.append((row.label, best, median_ms, f"< {1e3 * row.aim_s:.0f}" if row.aim_s else ""))
        if row.aim_s and row.facts["median_s"] >= row.aim_s:
            missed.append(f"{median_ms} instead of {1e3 * row.aim_s:.0f} ms")
    return f"{table(head, body)}\n\n{verdict(missed)}" + not_measured((row.label, row.facts) for row in rows)
