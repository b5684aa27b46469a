"""Sizes in sentences."""


def short_size(n_bytes: float) -> str:
    """`1.24 GB`, or `12.4 MB` below that."""
    return f"{n_bytes / 1e9:,.2f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:,.1f} MB"
