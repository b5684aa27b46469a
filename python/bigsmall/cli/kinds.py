"""What became of the tensors of each kind: norms, embeddings, attention and so on."""

from typing import Any

from ..layers import kind_of
from ..summary import total, totals_by
from .printer import percent, table


def totals(rows: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """For rows of `bigsmall.stat`: their totals by kind, with the `dtypes` and `codecs` that occur, most bytes first."""
    by_kind = totals_by(rows, lambda row: kind_of(row["name"]))
    for kind, facts in by_kind.items():
        members = [row for row in rows if kind_of(row["name"]) == kind]
        facts["dtypes"] = list(totals_by(members, lambda row: row["dtype"]))
        facts["codecs"] = list(totals_by(members, lambda row: row["codec"]))
    return by_kind


def lines(rows: list[dict[str, Any]]) -> list[str]:
    """The same as a table, with a line for all together."""
    everything = {**total(rows), "dtypes": [], "codecs": []}
    return table(
        ("kind", "dtypes", "codecs", "tensors", "raw bytes", "compressed", "ratio"),
        [
            (
                kind,
                " ".join(facts["dtypes"]),
                " ".join(facts["codecs"]),
                f"{facts['tensor_count']:,}",
                f"{facts['raw_bytes']:,}",
                f"{facts['compressed_bytes']:,}",
                percent(facts["ratio_pct"]),
            )
            for kind, facts in {**totals(rows), "all": everything}.items()
        ],
        left=3,
    )
