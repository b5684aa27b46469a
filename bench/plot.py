"""Decode speed against size, a point for each rival at each setting."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import child
import environment
from tables import ISA_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import RendererAgg
    from matplotlib.text import Annotation

    from results import Facts
    from sections import codec, speed

REQUIREMENTS = ("matplotlib==3.11.2",)

PANELS = ("normal", "minilm-bf16")

COLOURS = {
    "codec": "#0b5fa5",
    "bigsmall": "#0b5fa5",
    "published": "#d1495b",
    "zipnn": "#2e8b57",
    "zstd": "#8a6d3b",
    "blosc2": "#7b5ea7",
    "pcodec": "#c77700",
}

ONE_THREAD = {
    "bigsmall balanced": "bigsmall balanced, whole file, md5 checked",
    "published bigsmall 4.0.0": "published bigsmall 4.0.0",
    "zipnn": "ZipNN",
    "zstd -3": "zstd -3",
    "blosc2 bitshuffle + zstd, level 5": "blosc2, bitshuffle + zstd",
    "pcodec, level 8": "pcodec",
}
"""The settings that are shown, and their names in the plot."""

SIZE_TICKS = (65, 65.2, 65.5, 66, 67, 68, 70, 74, 78, 84)

LABEL_PLACES = [
    (side * across, up * above) for above in (11, 24, 37, 50, 63, 76) for across in (7, 24) for up in (1, -1) for side in (1, -1)
]
"""Where a name may stand from its point, in typographic points, best first."""


class Point(NamedTuple):
    label: str
    colour: str
    decode_mb_per_s: float
    percent: float


def draw(path: Path, codec_rows: Sequence[codec.Row], speed_rows: Sequence[speed.Row]) -> None:
    """Write the plot as PNG: a panel for each input of `PANELS`. Raises ChildError, InstallError."""
    titles = {row.kind.key: row.kind.label for row in speed_rows}
    panels = {titles[key]: found for key in PANELS if (found := points(key, codec_rows, speed_rows))}
    if panels:
        child.call("plot:draw_panels", {"path": str(path), "panels": panels}, environment.interpreter("plot", REQUIREMENTS))


def points(kind_key: str, codec_rows: Sequence[codec.Row], speed_rows: Sequence[speed.Row]) -> list[Point]:
    shown = [(f"bigsmall {row.mode}, {ISA_NAMES[row.isa]}", "codec", row.facts) for row in codec_rows if row.kind.key == kind_key]
    shown += [(ONE_THREAD[row.label], row.rival, row.facts) for row in speed_rows if row.kind.key == kind_key and row.label in ONE_THREAD]
    return [
        Point(label, COLOURS[group], facts["raw_bytes"] / facts["decode_s"] / 1e6, 100 * facts["bytes"] / facts["raw_bytes"])
        for label, group, facts in shown
        if "error" not in facts
    ]


def draw_panels(path: str, panels: dict[str, list[list[Any]]]) -> Facts:
    """A panel for each title, with the fields of its points."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    shown = {title: [Point(*fields) for fields in members] for title, members in panels.items()}
    figure, grid = plt.subplots(
        len(shown), 1, figsize=(10, 5.4 * len(shown)), dpi=130, sharex=True, sharey=True, squeeze=False, layout="constrained"
    )
    axes = grid[:, 0]
    scale_axes(axes[0], [point for members in shown.values() for point in members])
    for axis, (title, members) in zip(axes, shown.items(), strict=True):
        axis.scatter(
            [point.decode_mb_per_s for point in members],
            [point.percent for point in members],
            c=[point.colour for point in members],
            s=46,
            zorder=3,
            edgecolors="white",
            linewidths=0.8,
        )
        axis.set_title(title, loc="left", fontsize=12, fontweight="bold")
        axis.set_ylabel("size, % of raw")
        axis.grid(True, color="#e4e4e4", linewidth=0.6)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelbottom=True)
        axis.text(0.99, 0.97, "smaller: down\nfaster: right", transform=axis.transAxes, ha="right", va="top", color="#777777", fontsize=9)
    axes[-1].set_xlabel("decode speed on one thread, MB of raw weights a second")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    for axis, members in zip(axes, shown.values(), strict=True):
        place_labels(axis, members, canvas.get_renderer())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return {}


def scale_axes(axis: Axes, members: Sequence[Point]) -> None:
    """Both axes logarithmic, that of sizes in the distance from a little below the smallest, where all good ones are."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator

    speeds = [point.decode_mb_per_s for point in members]
    sizes = [point.percent for point in members]
    floor = min(sizes) - 0.5
    axis.set_yscale("function", functions=(lambda size: np.log(np.maximum(size - floor, 1e-3)), lambda distance: np.exp(distance) + floor))
    axis.set_ylim(min(sizes) - 0.2, max(sizes) + 6)
    axis.yaxis.set_major_locator(FixedLocator([tick for tick in SIZE_TICKS if min(sizes) - 0.2 <= tick <= max(sizes) + 6]))
    axis.yaxis.set_minor_locator(FixedLocator([]))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_xscale("log")
    axis.set_xlim(min(speeds) / 1.6, max(speeds) * 2.2)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_minor_locator(FixedLocator([]))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def place_labels(axis: Axes, members: Sequence[Point], renderer: RendererAgg) -> None:
    """Name each point where the name covers neither a point nor another name; if there is no such place, at the best one."""
    from matplotlib.text import Text
    from matplotlib.transforms import Bbox

    spots = [axis.transData.transform((point.decode_mb_per_s, point.percent)) for point in members]
    taken = [Bbox.from_bounds(x - 8, y - 8, 16, 16) for x, y in spots]
    frame = axis.get_window_extent(renderer)

    def name(point: Point, across: float, up: float) -> Annotation:
        return axis.annotate(
            point.label,
            (point.decode_mb_per_s, point.percent),
            (across, up),
            textcoords="offset points",
            ha="left" if across > 0 else "right",
            va="center",
            fontsize=9,
            color=point.colour,
            arrowprops={
                "arrowstyle": "-",
                "color": point.colour,
                "linewidth": 0.6,
                "alpha": 0.6,
                "relpos": (0 if across > 0 else 1, 0.5),
                "shrinkA": 1,
                "shrinkB": 3,
            },
        )

    for point in sorted(members, key=lambda point: -point.decode_mb_per_s):
        for place in LABEL_PLACES:
            text = name(point, *place)
            text.update_positions(renderer)
            # An annotation's own extent has its line in it.
            box = Text.get_window_extent(text, renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box)
                break
            text.remove()
        else:
            name(point, *LABEL_PLACES[0])
