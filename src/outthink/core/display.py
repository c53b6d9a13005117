"""How values show themselves: a few lines of text, and a small table in a notebook.

Knows a title and rows of a name and what it stands for, and escapes what goes into HTML: answers and model names
come from elsewhere. Does not know what the rows mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from textwrap import shorten

Rows = Sequence[tuple[str, str]]
_LONGEST = 400
"""Characters of one value that are shown."""


class Displayed:
    """A value that shows its `display`; a dataclass needs `repr=False` beside it."""

    __slots__ = ()  # else its subclasses with slots would have a __dict__ all the same

    def display(self) -> tuple[str, Rows]:
        """A title, and the rows below it."""
        raise NotImplementedError

    def __repr__(self) -> str:
        title, rows = self.display()
        width = max((len(name) for name, _ in rows), default=0)
        return "\n".join([title, *(f"  {name:<{width}}  {shorten(value, _LONGEST)}" for name, value in rows)])

    def _repr_html_(self) -> str:
        title, rows = self.display()
        cells = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th>"
            f"<td style='text-align:left'>{escape(shorten(value, _LONGEST))}</td></tr>"
            for name, value in rows
        )
        return f"<table><caption style='text-align:left'>{escape(title)}</caption><tbody>{cells}</tbody></table>"
