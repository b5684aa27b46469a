"""A page with plots of what `xray` found: one file of HTML that needs nothing else to be shown."""

import html
from collections import defaultdict
from itertools import groupby
from typing import TYPE_CHECKING, Any

from .extras import require
from .layers import kind_of, layer_of, layers_of

if TYPE_CHECKING:
    from collections.abc import Callable

Facts = dict[str, Any]

KIND_COLORS = {
    "embedding": "#7b5ea7",
    "attention": "#2f6db5",
    "mlp": "#2a9d8f",
    "norm": "#b08900",
    "head": "#c8553d",
    "convolution": "#5b8c2a",
    "other": "#7a7f87",
}
FLAG_COLORS = {
    "bf16_native_lineage": "#4a90d9",
    "lineage_residue": "#9bc1e8",
    "mantissa_carved": "#7b5ea7",
    "sign_imbalance": "#e0a030",
    "exp_near_random": "#d1383d",
    "below_random_floor": "#2a9d8f",
}
CONTROL_COLOR = "#b9bdc4"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

STYLE = f"""
body {{ font-family: {FONT}; color: #1f2328; background: #f6f7f9; margin: 0; }}
main {{ max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }}
h1 {{ font-size: 25px; margin: 0 0 4px; overflow-wrap: anywhere; }}
h2 {{ font-size: 17px; margin: 0; }}
p {{ margin: 4px 0 0; color: #57606a; line-height: 1.45; font-size: 14px; }}
section {{ background: #fff; border: 1px solid #e3e6ea; border-radius: 10px; padding: 18px 20px; margin-top: 18px; }}
.tiles {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin-top: 18px; }}
.tile {{ background: #fff; border: 1px solid #e3e6ea; border-radius: 10px; padding: 12px 16px; }}
.tile b {{ display: block; font-size: 21px; font-weight: 600; }}
.tile span {{ color: #57606a; font-size: 12.5px; }}
.warning {{ background: #d1383d; color: #fff; border-radius: 10px; padding: 16px 20px; margin-top: 18px; font-size: 16px; }}
dl {{ display: grid; grid-template-columns: max-content 1fr; gap: 5px 14px; font-size: 13.5px; margin: 12px 0 0; }}
dt::before {{ content: ""; display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin-right: 7px; }}
dt::before {{ background: var(--color); }}
dd {{ margin: 0; color: #57606a; }}
table {{ border-collapse: collapse; font-size: 12.5px; width: 100%; margin-top: 12px; }}
th, td {{ text-align: right; padding: 4px 8px; border-bottom: 1px solid #eceff2; white-space: nowrap; }}
th:first-child, td:first-child {{ text-align: left; overflow-wrap: anywhere; white-space: normal; }}
.scroll {{ overflow-x: auto; }}
"""


def check_available() -> None:
    """Raise ModuleNotFoundError, with what to do, if plotly is not installed."""
    require("plotly", "report", "xray --html")


def page(facts: Facts) -> str:
    """The page for what `bigsmall.xray` returned.

    Raises ModuleNotFoundError if plotly is not installed.
    """
    check_available()
    from plotly.offline import get_plotlyjs

    tensors = in_depth_order(facts["tensors"])
    parts = [_tiles(facts)]
    if facts["looks_untrained"]:
        parts.append(
            f'<div class="warning"><b>This checkpoint looks untrained.</b> {facts["n_random"]:,} of {facts["n_matrices"]:,} matrices have '
            "exponents that cannot be told from those of random weights.</div>"
        )
    if tensors:
        for title, words, figure in (
            ("Entropy along depth", ENTROPY_WORDS, _entropies),
            ("Exponents", EXPONENT_WORDS, _exponents),
            ("Flags", "Which tensors are remarkable, and for what.", _flags),
            ("Where the bytes are", SIZE_WORDS, _sizes),
        ):
            extra = _meanings(facts) if figure is _flags else ""
            parts.append(_section(title, words, _plot(figure(tensors), title) + extra))
        parts.append(_section("Fingerprints", "One row for each tensor.", _table(tensors)))
    name = html.escape(facts["path"])
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>xray of {name}</title><style>{STYLE}</style><script>{get_plotlyjs()}</script></head><body><main>"
        f"<h1>{name}</h1><p>Sign, exponent and mantissa of every float tensor of {facts['min_elements']:,} elements and more, "
        f"beside random weights of the same mean and deviation.</p>{''.join(parts)}</main></body></html>\n"
    )


ENTROPY_WORDS = (
    "Bits that a symbol needs at least, tensor by tensor from the first layer to the last. Grey: random normal weights with the tensor's "
    "mean and deviation. Training spreads exponents, which lifts them above the grey; mantissas stay at it, unless the values were "
    "something else before."
)
EXPONENT_WORDS = (
    "How often each power of two occurs. Left, all tensors of a kind together, dotted for random weights. Right, tensor by tensor: the "
    "darker, the more often."
)
SIZE_WORDS = "Areas are bytes; colours what is left of them when sign, exponent and mantissa are coded ideally, each for itself."


def in_depth_order(tensors: list[Facts]) -> list[Facts]:
    """The tensors of layers in the order of these, what comes before the first in a file before them, the rest behind."""
    names = [tensor["name"] for tensor in tensors]
    depth = {name: at for at, layer in enumerate(layers_of(names).values()) for name in layer}
    first = next((at for at, name in enumerate(names) if name in depth), len(names))
    last = len(depth)
    return [
        tensor
        for _, tensor in sorted(
            enumerate(tensors), key=lambda item: (depth.get(item[1]["name"], -1 if item[0] < first or _opens(item[1]) else last), item[0])
        )
    ]


def _opens(tensor: Facts) -> bool:
    return kind_of(tensor["name"]) == "embedding"


def _tiles(facts: Facts) -> str:
    n_flagged = sum(1 for tensor in facts["tensors"] if tensor["flags"])
    values = [
        (f"{facts['n_analyzed']:,}", f"tensors of {facts['n_tensors']:,}"),
        (f"{facts['raw_bytes'] / 1e6:,.1f} MB", "looked at"),
        (f"{n_flagged:,}", "tensors with flags"),
    ]
    if facts["tensors"]:
        values += [
            (f"{facts['median_h_exp']:.2f} bits", "median entropy of exponents"),
            (f"{facts['median_h_mant']:.2f} bits", "median entropy of mantissas"),
            (f"{facts['median_ratio_pct']:.1f} %", "median of what is left"),
        ]
    tiles = (f'<div class="tile"><b>{value}</b><span>{label}</span></div>' for value, label in values)
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _section(title: str, words: str, content: str) -> str:
    return f"<section><h2>{title}</h2><p>{words}</p>{content}</section>"


def _plot(figure: Any, title: str) -> str:
    figure.update_layout(
        template="plotly_white",
        font={"family": FONT, "size": 12, "color": "#1f2328"},
        margin={"l": 60, "r": 20, "t": 40, "b": 50},
        hoverlabel={"font": {"family": FONT, "size": 12}},
        paper_bgcolor="#fff",
    )
    name = title.lower().replace(" ", "-")
    config = {"displaylogo": False, "responsive": True, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
    made: str = figure.to_html(include_plotlyjs=False, full_html=False, div_id=name, config=config)
    return made


def _entropies(tensors: list[Facts]) -> Any:
    from plotly import graph_objects as go

    views: dict[str, tuple[str, Callable[[Facts], float], Callable[[Facts], float]]] = {
        "exponent": ("bits", lambda t: t["exp"]["entropy"], lambda t: t["exp"]["control_entropy"]),
        "mantissa": ("bits", lambda t: t["mant"]["entropy"], lambda t: t["mant"]["control_entropy"]),
        "sign": ("bits", lambda t: t["sign"]["entropy"], lambda t: t["sign"]["control_entropy"]),
        "all together": ("% of the bits", lambda t: t["ratio_pct"], lambda t: t["control_ratio_pct"]),
    }
    figure = go.Figure()
    owners: list[str] = []
    numbers = list(range(len(tensors)))
    kinds = _kinds(tensors)
    for view, (_, measured, control) in views.items():
        visible = view == "exponent"
        figure.add_scatter(
            x=numbers,
            y=[control(tensor) for tensor in tensors],
            mode="lines",
            line={"color": CONTROL_COLOR, "width": 2, "shape": "hvh"},
            name="random weights",
            hoverinfo="skip",
            visible=visible,
        )
        owners.append(view)
        for kind in kinds:
            members = [at for at in numbers if kind_of(tensors[at]["name"]) == kind]
            figure.add_scatter(
                x=members,
                y=[measured(tensors[at]) for at in members],
                mode="markers",
                marker={"size": 8, "color": KIND_COLORS[kind], "line": {"width": 0.5, "color": "#fff"}},
                name=kind,
                customdata=[
                    [html.escape(tensors[at]["name"]), control(tensors[at]), tensors[at]["dtype"], _shape(tensors[at])] for at in members
                ],
                hovertemplate="<b>%{customdata[0]}</b><br>%{customdata[2]} %{customdata[3]}<br>"
                "%{y:.4f}, random %{customdata[1]:.4f}<extra></extra>",
                visible=visible,
            )
            owners.append(view)
    buttons = [
        {
            "label": view,
            "method": "update",
            "args": [{"visible": [owner == view for owner in owners]}, {"yaxis.title.text": f"{view}, {unit}"}],
        }
        for view, (unit, _, _) in views.items()
    ]
    figure.update_layout(
        height=430,
        updatemenus=[
            {"type": "buttons", "direction": "right", "buttons": buttons, "x": 0, "y": 1.03, "xanchor": "left", "yanchor": "bottom"}
        ],
        legend={"orientation": "h", "y": 1.02, "x": 1, "xanchor": "right", "yanchor": "bottom"},
        yaxis={"title": {"text": "exponent, bits"}},
        xaxis=_depth_axis(tensors),
    )
    return figure


def _exponents(tensors: list[Facts]) -> Any:
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=1, cols=2, column_widths=[0.46, 0.54], horizontal_spacing=0.09)
    powers = sorted({power for tensor in tensors for power, count, expected in tensor["exponents"] if count + expected > 0})
    for kind in _kinds(tensors):
        counts: dict[int, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for tensor in tensors:
            if kind_of(tensor["name"]) == kind:
                for power, count, expected in tensor["exponents"]:
                    counts[power][0] += count
                    counts[power][1] += expected
        n = sum(count for count, _ in counts.values()) or 1
        at = sorted(counts)
        for which, (dash, width, label) in enumerate((("solid", 2.2, kind), ("dot", 1.3, f"{kind}, random"))):
            figure.add_scatter(
                x=at,
                y=[100 * counts[power][which] / n for power in at],
                mode="lines",
                line={"color": KIND_COLORS[kind], "dash": dash, "width": width, "shape": "spline", "smoothing": 0.4},
                name=label,
                legendgroup=kind,
                showlegend=which == 0,
                hovertemplate=f"{label}: %{{y:.2f}} % have 2<sup>%{{x}}</sup><extra></extra>",
                row=1,
                col=1,
            )
    index = {power: at for at, power in enumerate(powers)}
    grid = []
    for tensor in tensors:
        row = [0.0] * len(powers)
        for power, count, _ in tensor["exponents"]:
            row[index[power]] = 100 * count / tensor["n_elements"]
        grid.append(row)
    figure.add_heatmap(
        x=powers,
        y=list(range(len(tensors))),
        z=grid,
        customdata=[[html.escape(tensor["name"])] * len(powers) for tensor in tensors],
        hovertemplate="<b>%{customdata}</b><br>%{z:.2f} % have 2<sup>%{x}</sup><extra></extra>",
        colorscale="Purples",
        zmin=0,
        colorbar={"title": {"text": "%"}, "thickness": 10, "len": 0.9},
        row=1,
        col=2,
    )
    low, high = _usual_powers(tensors)
    figure.update_xaxes(range=[low - 0.5, high + 0.5], title={"text": "power of two"}, dtick=4)
    figure.update_yaxes(title={"text": "% of the values"}, rangemode="tozero", row=1, col=1)
    depth = _depth_axis(tensors)
    depth.pop("title")
    figure.update_yaxes(**depth, autorange="reversed", row=1, col=2)
    figure.update_layout(height=460, legend={"orientation": "h", "y": 1.02, "x": 0, "yanchor": "bottom"})
    return figure


def _usual_powers(tensors: list[Facts]) -> tuple[int, int]:
    """The powers of two between which all but one value in 2000 lie: stray ones would squeeze the rest."""
    counts: dict[int, float] = defaultdict(float)
    for tensor in tensors:
        for power, count, _ in tensor["exponents"]:
            counts[power] += count / tensor["n_elements"]
    usual = [power for power, share in counts.items() if share > len(tensors) / 2000]
    return min(usual), max(usual)


def _flags(tensors: list[Facts]) -> Any:
    from plotly import graph_objects as go

    flags = list(FLAG_COLORS)
    figure = go.Figure()
    for row, flag in enumerate(flags):
        members = [at for at, tensor in enumerate(tensors) if flag in tensor["flags"]]
        # A row of squares each: as heatmap with one colour, so that a thousand tensors are as easy to draw as ten.
        present = set(members)
        figure.add_heatmap(
            x=list(range(len(tensors))),
            y=[row],
            z=[[1 if at in present else 0 for at in range(len(tensors))]],
            customdata=[[html.escape(tensor["name"]) for tensor in tensors]],
            hovertemplate=f"<b>%{{customdata}}</b><br>{flag}: %{{z:d}}<extra></extra>",
            colorscale=[[0, "#eef0f3"], [1, FLAG_COLORS[flag]]],
            zmin=0,
            zmax=1,
            showscale=False,
            xgap=1 if len(tensors) <= 400 else 0,
            ygap=3,
        )
    counts = {flag: sum(flag in tensor["flags"] for tensor in tensors) for flag in flags}
    figure.update_layout(height=310, xaxis=_depth_axis(tensors))
    figure.update_yaxes(
        tickvals=list(range(len(flags))), ticktext=[f"{flag}  {counts[flag]}" for flag in flags], autorange="reversed", showgrid=False
    )
    figure.update_xaxes(showgrid=False)
    return figure


def _sizes(tensors: list[Facts]) -> Any:
    from plotly import graph_objects as go

    root = "all"
    rows: list[tuple[str, str, str, int, float]] = []
    left = 0.0
    for kind in _kinds(tensors):
        members = [tensor for tensor in tensors if kind_of(tensor["name"]) == kind]
        for tensor in members:
            n_bytes = _bytes(tensor)
            rows.append((f"{kind}/{tensor['name']}", html.escape(tensor["name"]), kind, n_bytes, tensor["ratio_pct"]))
        total = sum(map(_bytes, members))
        coded = sum(_bytes(tensor) * tensor["ratio_pct"] for tensor in members)
        left += coded
        rows.append((kind, kind, root, total, coded / total))
    total = sum(map(_bytes, tensors))
    rows.append((root, "all tensors", "", total, left / total))
    ratios = [tensor["ratio_pct"] for tensor in tensors]
    ids, labels, parents, sizes, shares = zip(*rows, strict=True)
    figure = go.Figure(
        go.Treemap(
            ids=ids,
            labels=labels,
            parents=parents,
            values=sizes,
            branchvalues="total",
            marker={
                "colors": shares,
                "colorscale": "Tealgrn_r",
                "cmin": min(ratios),
                "cmax": max(ratios),
                "colorbar": {"title": {"text": "% left"}, "thickness": 10},
                "line": {"width": 1, "color": "#fff"},
            },
            customdata=shares,
            hovertemplate="<b>%{label}</b><br>%{value:,} bytes<br>%{customdata:.2f} % left<extra></extra>",
            texttemplate="%{label}<br>%{customdata:.1f} %",
            maxdepth=3,
            tiling={"pad": 1},
            pathbar={"visible": False},
        )
    )
    figure.update_layout(height=470, uniformtext={"minsize": 9, "mode": "hide"})
    return figure


def _meanings(facts: Facts) -> str:
    rows = (
        f'<dt style="--color: {FLAG_COLORS[flag]}">{flag}</dt><dd>{html.escape(meaning)}</dd>' for flag, meaning in facts["flags"].items()
    )
    return f"<dl>{''.join(rows)}</dl>"


def _table(tensors: list[Facts]) -> str:
    head = ("tensor", "dtype", "shape", "H sign", "H exp", "KL exp", "H mant", "KL mant", "left", "signs +", "kurtosis", "rank 1")
    body = (
        (
            html.escape(tensor["name"]),
            tensor["dtype"],
            _shape(tensor),
            f"{tensor['sign']['entropy']:.4f}",
            f"{tensor['exp']['entropy']:.3f}",
            f"{tensor['exp']['divergence']:.4f}",
            f"{tensor['mant']['entropy']:.3f}",
            f"{tensor['mant']['divergence']:.4f}",
            f"{tensor['ratio_pct']:.2f} %",
            f"{100 * tensor['sign_balance']:.1f} %",
            f"{tensor['excess_kurtosis']:.2f}",
            "" if tensor["rank1_frac"] is None else f"{tensor['rank1_frac']:.3f}",
        )
        for tensor in tensors
    )
    rows = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body)
    return f'<div class="scroll"><table><tr>{"".join(f"<th>{cell}</th>" for cell in head)}</tr>{rows}</table></div>'


def _kinds(tensors: list[Facts]) -> list[str]:
    present = {kind_of(tensor["name"]) for tensor in tensors}
    return [kind for kind in KIND_COLORS if kind in present]


def _shape(tensor: Facts) -> str:
    return "\N{MULTIPLICATION SIGN}".join(map(str, tensor["shape"]))


def _bytes(tensor: Facts) -> int:
    widths = {"F32": 4, "F16": 2, "BF16": 2}
    return int(tensor["n_elements"]) * widths.get(tensor["dtype"], 1)


def _depth_axis(tensors: list[Facts]) -> dict[str, Any]:
    """Ticks at the first tensors of layers, by the layers' numbers, as many as there is room for."""
    groups = [(layer, [at for at, _ in group]) for layer, group in groupby(enumerate(tensors), key=lambda item: layer_of(item[1]["name"]))]
    starts = [(members[0], layer.rpartition(".")[2]) for layer, members in groups if layer is not None]
    step = max(1, len(starts) // 24)
    return {
        "tickvals": [at for at, _ in starts[::step]],
        "ticktext": [number for _, number in starts[::step]],
        "title": {"text": "layer"} if starts else {"text": "tensors in the order of the file"},
        "zeroline": False,
    }
