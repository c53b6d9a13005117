"""Figures of matplotlib that come out the same byte by byte, as SVG that needs nothing outside itself, PNG or PDF.

Knows: places in pixels, a legend of as many lines as it needs, and how SVG gets its title, its description and both
colour schemes. matplotlib, of the extra `report`, is imported when something is drawn; the state of pyplot is neither
read nor changed. Does not know what is drawn.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from outthink.core.plugins import need_extra
from outthink.evaluation.report.axis import EDGE, FONT, GRID, INK, MUTED, night

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMS: dict[str, dict[str, None]] = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "png": dict.fromkeys(("Software",)),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
}
"""What a figure can be written as, with what would tell when and by which version it was drawn."""
MARGIN = 28.0
_FONT = "DejaVu Sans"
_GROUP = re.compile(r'<g id="((?:line|key|handle)-\d+)">')
_MARKS = re.compile(r'<g id="marks-([\d-]+)">(.*?)</g>', re.DOTALL)
_MARK = re.compile(r'<use [^>]* x="([^"]*)" y="([^"]*)"[^>]*>')
_AROUND = r'<circle cx="\1" cy="\2" r="11" fill="transparent"/>\g<0></g>'
"""A mark is easier to point at than it is large."""
_NEEDLESS = re.compile(
    rf""" font-family: '{_FONT}';|(?<=") transform="rotate\(-0 [^"]*"|(?<=") style="[^"]*"(?=/>\s*</defs>)"""
)
"""Every text names the font in which it was measured and turns by nothing; shapes that are used have a style there."""
_IDENTIFIER = re.compile(r'(?<= id=")|(?<=url\(#)|(?<=href="#)')


@contextmanager
def settings(prefix: str) -> Iterator[None]:
    """matplotlib without anybody's configuration, with identifiers that begin with `prefix`; BadInput without it.

    Letters stay letters in SVG. They are measured in a font that matplotlib brings along and that is wider than most.
    """
    need_extra("report", "figure", prefix)
    import matplotlib

    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # measured as a box; the reader's fonts may have it
        matplotlib.rcdefaults()
        matplotlib.rc("svg", fonttype="none", hashsalt=prefix)
        matplotlib.rc("font", family=[_FONT], size=12)
        matplotlib.rc("text", color=INK, parse_math=False)
        matplotlib.rc("axes", edgecolor=MUTED, labelcolor=MUTED, facecolor="none", axisbelow=True)
        matplotlib.rc("grid", color=GRID)
        matplotlib.rc("xtick", color=MUTED)
        matplotlib.rc("ytick", color=MUTED)
        yield


class Canvas:
    """A figure measured in pixels from its upper left corner; everything about it happens within `settings`."""

    def __init__(self, width: float) -> None:
        from matplotlib.figure import Figure

        self.figure, self.width, self.height = Figure(figsize=(width / 72, 1), dpi=72), width, 72.0

    def legend(self, entries: Sequence[tuple[str, dict[str, Any]]]) -> float:
        """Entries (a name, and how its line looks), as many in a line as there is room for; the height of all."""
        from matplotlib.lines import Line2D

        lines = [Line2D([], [], **look) for _, look in entries]
        for columns in range(len(entries), 0, -1):
            # matplotlib fills columns; readers go along lines.
            order = [place for column in range(columns) for place in range(column, len(entries), columns)]
            shown = self.figure.legend(
                [lines[place] for place in order],
                [entries[place][0] for place in order],
                loc="upper left",
                ncols=columns,
                frameon=False,
                borderpad=0,
                borderaxespad=0,
                columnspacing=1.4,
                labelspacing=0.6,
            )
            box = shown.get_window_extent()
            if box.width <= self.width - 2 * MARGIN or columns == 1:
                break
            shown.remove()
        for place, handle, text in zip(order, shown.legend_handles, shown.get_texts(), strict=True):
            text.set_gid(f"key-{place}")
            if handle is not None:
                handle.set_gid(f"handle-{place}")
        return float(box.height)

    def resize(self, height: float, legend: float) -> None:
        """Set the height, once it is known, and the upper edge of the legend."""
        self.height = height
        self.figure.set_size_inches(self.width / 72, height / 72)
        self.figure.legends[0].set_bbox_to_anchor((MARGIN / self.width, 1 - legend / height))

    def axes(self, left: float, top: float, width: float, height: float) -> Axes:
        """Axes with a grid and a line below."""
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axes = self.figure.add_axes(place)
        axes.grid(linewidth=1)
        axes.spines[["left", "top", "right"]].set_visible(False)
        axes.tick_params(length=0, pad=6)
        return axes

    def text(self, left: float, foot: float, content: str, **look: Any) -> None:
        """A line of text."""
        self.figure.text(left / self.width, 1 - foot / self.height, content, **look)

    def heading(self, title: str, subtitle: str) -> None:
        """A title, what stands below it, and a frame around everything."""
        self.text(MARGIN, 42, title, fontsize=19, fontweight="bold")
        self.text(MARGIN, 63, subtitle, color=MUTED)
        self.figure.patch.set(edgecolor=EDGE, linewidth=1)

    def write(self, form: str) -> bytes:
        """The figure in one of FORMS."""
        out = io.BytesIO()
        self.figure.savefig(out, format=form, dpi=144 if form == "png" else 72, metadata=FORMS[form])
        return out.getvalue()

    def svg(self, prefix: str, title: str, about: str, tags: Mapping[str, str], *, alone: bool = True) -> str:
        """An <svg> element with a title and a description for those who cannot see it.

        Args:
            prefix: begins every identifier inside, unique within a page.
            tags: what begins the groups that were drawn with a gid like `line-3`, the legend's `key-3` and `handle-3`,
                and `mark-7` and `mark-8`, where marks were drawn together with the gid `marks-7-8`.
            alone: it is no part of a page, which would bring the style.
        """

        def marks(found: re.Match[str]) -> str:
            places = iter(found[1].split("-"))
            return f"<g>{_MARK.sub(lambda mark: tags[f'mark-{next(places)}'] + mark.expand(_AROUND), found[2])}</g>"

        text = _NEEDLESS.sub("", self.write("svg").decode())
        text = _MARKS.sub(marks, text[text.index(">", text.index("<svg")) + 1 :])
        text = _GROUP.sub(lambda found: tags.get(found[1], "<g>"), text)
        # Within a page the margins are the page's.
        view = f"0 0 {self.width:g}" if alone else f"{MARGIN - 10:g} 0 {self.width - 2 * MARGIN + 20:g}"
        size = f'width="{self.width:g}" height="{self.height:g}" ' if alone else ""
        return (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" class="outthink" '
            f'viewBox="{view} {self.height:g}" {size}font-family="{FONT}" '
            f'role="{"img" if alone else "group"}" aria-labelledby="{prefix}-title {prefix}-desc">'
            f'<title id="{prefix}-title">{escape(title)}</title>'
            f'<desc id="{prefix}-desc">{escape(about)}</desc>{f"<style>{night()}</style>" if alone else ""}'
            f"{_IDENTIFIER.sub(f'{prefix}-', text).strip()}"
        )
