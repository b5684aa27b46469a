"""Fills the generated parts of a Markdown page, each between `<!-- begin NAME -->` and `<!-- end NAME -->`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def fill(page: str, parts: Mapping[str, str]) -> str:
    """The page with these parts replaced; the others stay as they are. Raises KeyError for a part that the page has no place for."""
    for name, text in parts.items():
        pattern = rf"(<!-- begin {re.escape(name)} -->\n).*?(<!-- end {re.escape(name)} -->)"
        places = list(re.finditer(pattern, page, re.DOTALL))
        if len(places) != 1:
            raise KeyError(f"the page has {len(places)} places for {name!r}")
        (place,) = places
        page = f"{page[: place.start()]}{place[1]}\n{text}\n\n{place[2]}{page[place.end() :]}"
    return page
