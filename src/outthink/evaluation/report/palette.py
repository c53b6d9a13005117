"""Colours, marker shapes and the style sheet of the charts.

Knows: a palette that survives colour blindness and both colour schemes. Does not know what is drawn:
a contender is a number, and beyond the palette shapes keep telling contenders apart.
"""

from __future__ import annotations

# (light, dark), after Okabe and Ito and Paul Tol; at least 3:1 against the background of each scheme.
COLOURS = (
    ("#0072b2", "#5ab4f0"),
    ("#d55e00", "#ff914d"),
    ("#008f68", "#34cfa0"),
    ("#aa4499", "#e593d0"),
    ("#a87900", "#f2c94c"),
    ("#882255", "#e0708f"),
    ("#2f93c8", "#a5dcff"),
    ("#6b7a12", "#c3d05a"),
)
# Unit shapes, centred, of about equal area; `circle` is the baseline's.
SHAPES = {
    "circle": "M0-1A1 1 0 1 1 0 1A1 1 0 1 1 0-1Z",
    "square": "M-.9-.9H.9V.9H-.9Z",
    "up": "M0-1.2L1.1.8H-1.1Z",
    "diamond": "M0-1.3L1.3 0 0 1.3-1.3 0Z",
    "down": "M0 1.2L1.1-.8H-1.1Z",
    "hexagon": "M-1.1 0L-.55-.95H.55L1.1 0 .55.95H-.55Z",
    "plus": "M-.4-1.2H.4V-.4H1.2V.4H.4V1.2H-.4V.4H-1.2V-.4H-.4Z",
    "left": "M-1.2 0L.8-1.1V1.1Z",
    "right": "M1.2 0L-.8-1.1V1.1Z",
    "star": "M0-1.5L.4-.5 1.43-.46.62.18.88 1.2 0 .6-.88 1.2-.62.18-1.43-.46-.4-.5Z",
}
_CONTENDERS = ("square", "up", "diamond", "down", "hexagon", "plus", "left", "right")
FONT = "system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif"


def shape(colour: int | None, *, star: bool = False) -> str:
    """Name of the marker of a contender, of the baseline (None), or of a reference point."""
    if star:
        return "star"
    # Shifted once a lap, so that contender 9 differs from contender 1 in shape where it shares its colour.
    return "circle" if colour is None else _CONTENDERS[(colour + colour // len(COLOURS)) % len(_CONTENDERS)]


def colour_class(colour: int | None) -> str:
    """CSS class of a contender; the references are drawn in ink."""
    return "ink" if colour is None else f"c{colour % len(COLOURS)}"


def _variables(dark: bool) -> str:
    surface = (
        {"bg": "#14171c", "ink": "#e8eaed", "muted": "#a0a7b1", "grid": "#2a2f37", "edge": "#2a2f37", "band": ".16"}
        if dark
        else {
            "bg": "#ffffff",
            "ink": "#1f2328",
            "muted": "#626b76",
            "grid": "#e9ecef",
            "edge": "#dde1e6",
            "band": ".10",
        }
    )
    colours = {f"c{index}": pair[int(dark)] for index, pair in enumerate(COLOURS)}
    return "".join(f"--{name}:{value};" for name, value in {**surface, **colours}.items())


def style(scope: str = ".outthink") -> str:
    """Style sheet of a chart, every rule under `scope`, following the reader's colour scheme."""
    rules = {
        "": f"{_variables(False)}font-family:{FONT};font-size:12px",
        " text": "fill:var(--ink);font-variant-numeric:tabular-nums",
        " .muted": "fill:var(--muted)",
        " .small": "font-size:11px",
        " .title": "font-size:19px;font-weight:650;letter-spacing:-.01em",
        " .head": "font-size:13.5px;font-weight:600",
        " .card": "fill:var(--bg);stroke:var(--edge)",
        " .grid": "stroke:var(--grid);fill:none",
        " .axis": "stroke:var(--muted);fill:none",
        " .halo": "stroke:var(--bg);stroke-width:3.5px;stroke-linejoin:round;paint-order:stroke",
        " .ink": "color:var(--ink)",
        **{f" .c{index}": f"color:var(--c{index})" for index in range(len(COLOURS))},
        " .line": "fill:none;stroke:currentColor;stroke-width:2;stroke-linejoin:round;stroke-linecap:round",
        " .oracle .line": "stroke-width:1.5;stroke-dasharray:2 5;opacity:.75",
        " .band": "fill:currentColor;opacity:var(--band)",
        " .whisker": "stroke:currentColor;stroke-width:1.25;opacity:.32;fill:none",
        " .mark": "fill:currentColor;stroke:var(--bg);stroke-width:.3",
    }
    sheet = "".join(f"{scope}{selector}{{{body}}}" for selector, body in rules.items())
    return f"{sheet}@media(prefers-color-scheme:dark){{{scope}{{{_variables(True)}}}}}"
