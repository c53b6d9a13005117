"""The report: plot, page, tables and terminal drawing of the same rows."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from datetime import UTC, datetime
from typing import Any

import pytest

pytest.importorskip("matplotlib")

from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from outthink.core.errors import BadInput
from outthink.evaluation.report.axis import COLOURS, METRICS, Axis, short
from outthink.evaluation.report.html import embed, render
from outthink.evaluation.report.plot import draw, write
from outthink.evaluation.report.table import panels, show, strategies
from outthink.evaluation.report.terminal import terminal_plot

Rows = list[dict[str, Any]]
SVG = "{http://www.w3.org/2000/svg}"
ABOUT = {"title": "A & B", "time_model": {"stream": 50}, "seeds": 4, "problems": 1350, "ahead": 1, "gone": None}


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def test_colours_stand_out_in_both_schemes() -> None:
    for light, dark in COLOURS:
        assert 1.05 / (_luminance(light) + 0.05) >= 3
        assert (_luminance(dark) + 0.05) / (_luminance("#14171c") + 0.05) >= 3


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (9.035e-5, "0.0000904"),
        (-2e-5, "-0.00002"),
        (999, "999"),
        (1000, "1k"),
        (1536, "1.54k"),
        (3.1e12, "3.1T"),
        (999_999, "1M"),
    ],
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


@given(st.floats(1e-3, 1e15), st.floats(1.05, 1e6), st.booleans(), st.integers(3, 10))
def test_ticks_are_inside_and_not_too_many(low: float, factor: float, log: bool, count: int) -> None:
    axis = Axis.around([low, low * factor], 0, 400, log=log)
    ticks = axis.ticks(count)
    assert 1 <= len(ticks) <= 2 * count
    assert ticks == sorted(set(ticks))
    assert all(axis.low * (1 - 1e-9) <= tick <= axis.high * (1 + 1e-9) for tick in ticks)
    assert axis.at(axis.low) == pytest.approx(0)
    assert axis.at(axis.high) == pytest.approx(400)


def test_rows_become_panels_of_series(report_rows: Rows) -> None:
    assert strategies(report_rows) == ["self-consistency", "adaptive-consistency", "greedy", "oracle"]
    small, large = panels(report_rows[::-1])[::-1]
    assert (small.traces, large.traces) == ("small--demo", "large--demo")
    baseline = small.find("self-consistency")
    assert baseline is not None
    assert [point.n for point in baseline.points] == [1, 2, 4, 8, 16, 32]
    assert small.find("esc") is None
    with pytest.raises(BadInput, match="tokens"):
        panels([{"traces": "a", "strategy": "esc", "n": 1, "accuracy": 0.5}])


@pytest.mark.parametrize("x", ["tokens", "flops", "seconds"])
@pytest.mark.parametrize("log", [True, False])
def test_the_plot_is_a_standalone_picture(report_rows: Rows, x: str, log: bool) -> None:
    svg = draw(report_rows, x=x, log=log, subtitle="<demo> & more")
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(name in ids for name in (root.get("aria-labelledby") or "").split())
    assert "prefers-color-scheme:dark" in svg
    assert "var(" not in svg  # viewers that know no variables would draw in black
    assert "paint-order" not in svg  # and those that know no such order would paint outlines over letters
    assert not re.findall(r'(?:href|src|url)\s*[=(]\s*["\']?(?![#"\'])', svg), "nothing from outside"
    titles = [element.text or "" for element in root.iter(f"{SVG}title")][1:]
    assert len([title for title in titles if "oracle" not in title]) == 26
    assert "greedy, n = 1: 25.0 % [21.0, 30.0], " in titles[0] + "".join(titles)
    assert "small · demo" in svg


def _boxes(svg: str) -> list[tuple[float, float, float, float]]:
    """Rough boxes of the texts: left, right, top, bottom."""
    boxes = []
    for element in ET.fromstring(svg).iter(f"{SVG}text"):
        width = 6.0 * len(element.text or "")
        x, y = float(element.get("x", 0)), float(element.get("y", 0))
        anchor = re.search(r"text-anchor: (\w+)", element.get("style", ""))
        left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor[1] if anchor else "start"]
        boxes.append((left, left + width, y - 8, y))
    return boxes


@pytest.mark.parametrize("x", METRICS)
def test_no_text_lies_on_another(report_rows: Rows, x: str) -> None:
    more = [dict(item, strategy=f"deepconf:window={w}") for item in report_rows for w in (64, 128, 256)]
    boxes = _boxes(draw([*report_rows, *more], x=x))
    for index, (left, right, top, bottom) in enumerate(boxes):
        assert left >= 0
        assert right <= 960
        for other in boxes[index + 1 :]:
            assert right <= other[0] or other[1] <= left or bottom <= other[2] or other[3] <= top


@pytest.mark.parametrize("form", ["svg", "png", "pdf"])
def test_equal_rows_give_equal_bytes_whatever_matplotlib_is_told(report_rows: Rows, form: str) -> None:
    import matplotlib

    before = write(report_rows, form)
    with matplotlib.rc_context({"font.size": 30.0, "axes.edgecolor": "red", "svg.fonttype": "path"}):
        assert write(report_rows, form) == before
        assert matplotlib.rcParams["font.size"] == 30.0
    assert before.startswith({"svg": b"<svg", "png": b"\x89PNG", "pdf": b"%PDF"}[form])
    assert matplotlib.__version__.encode() not in before
    assert f"{datetime.now(UTC):%Y}".encode() not in before


def test_a_name_is_drawn_as_it_is_written(report_rows: Rows) -> None:
    names = {"$x$": "oracle", "深い": "greedy"}
    rows = [
        item | {"strategy": shown} for item in report_rows for shown, name in names.items() if item["strategy"] == name
    ]
    texts = {element.text for element in ET.fromstring(draw(rows)).iter(f"{SVG}text")}
    assert set(names) < texts


def test_matplotlib_is_loaded_when_something_is_drawn_and_pyplot_never() -> None:
    code = """
import sys
from outthink.evaluation.report import html, plot, terminal
loaded = ["matplotlib" in sys.modules]
plot.draw([{"traces": "a", "strategy": "esc", "n": 1, "accuracy": 0.5, "tokens": 10.0}])
print([*loaded, "matplotlib" in sys.modules, "matplotlib.pyplot" in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False, True, False]"


def test_unknown_costs_are_left_out_of_the_plot(report_rows: Rows) -> None:
    rows = [item | {"flops": None} for item in report_rows]
    assert "NaN" not in draw(rows, x="flops")
    page = render(rows, ABOUT)
    assert 'data-metric="flops"' not in page
    assert 'data-metric="seconds"' in page


def test_one_row_is_enough(report_rows: Rows) -> None:
    alone = [report_rows[1] | {"accuracy": 1.0, "accuracy_low": 1.0, "accuracy_high": 1.0}]
    assert draw(alone).startswith("<svg")
    assert "self-consistency" in terminal_plot(alone)
    with pytest.raises(BadInput):
        draw([])
    with pytest.raises(BadInput):
        render([], {})
    with pytest.raises(BadInput, match="dollars"):
        draw(alone, x="dollars")


def test_the_page_holds_everything_and_asks_for_nothing(report_rows: Rows) -> None:
    page = render(report_rows, ABOUT)
    assert "<h1>A &amp; B</h1>" in page
    for fact in ("<dt>time model</dt><dd>stream 50</dd>", "<dd>1,350</dd>", "<dt>ahead</dt>"):
        assert fact in page
    assert "gone" not in page
    assert "default-src 'none'" in page
    names = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert set(re.findall(r"https?://[^\"' ]+", page)) == names
    ids = re.findall(r'\sid="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert page.count('<tr data-row="') == len(report_rows)


def test_text_in_rows_cannot_leave_its_place(report_rows: Rows) -> None:
    evil = '</script><script>alert(1)</script><!-- "@@DATA@@" &amp;'
    rows = [item | {"strategy": evil, "traces": evil} for item in report_rows if item["strategy"] == "oracle"]
    page = render(rows, {"title": evil, "note": evil})
    assert page.count("<script") == page.count("</script>") == 2
    assert "alert(1)</script>" not in page
    data = re.search(r'id="data">(.*?)</script>', page, re.S)
    assert data is not None
    assert json.loads(data[1])[0]["strategy"] == evil
    assert json.loads(embed({"x": "</script>&"})) == {"x": "</script>&"}
    ET.fromstring(draw(rows, title=evil))
    with pytest.raises(ValueError):
        embed(float("nan"))


def _shown(rows: Rows, width: int) -> str:
    console = Console(width=width, file=io.StringIO())
    show(rows, console)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def test_the_console_table_fits_and_groups(report_rows: Rows) -> None:
    wide, narrow = _shown(report_rows, 160), _shown(report_rows, 84)
    assert "large--demo" in wide
    assert "+1.2 [+0.4, +2.0]" in narrow
    assert "cancelled" in wide
    assert "cancelled" not in narrow
    assert "…" not in narrow
    assert max(len(line.rstrip()) for line in narrow.splitlines()) <= 84
    assert wide.count("adaptive-consistency") == 2, "the name stands once a group"


def test_the_terminal_plot_keeps_to_its_size(report_rows: Rows) -> None:
    text = terminal_plot(report_rows, width=70, height=16)
    assert max(len(line) for line in text.splitlines()) <= 70
    assert "small · demo" in text
    assert "●" in text
    assert "\x1b" not in text
    tinted = terminal_plot(report_rows, width=70, height=16, color=True)
    assert re.sub(r"\x1b\[[0-9;]*m", "", tinted) == text


def test_remarks_stand_once_below_the_tables(report_rows: Rows) -> None:
    rows = [item | {"notes": ["scored by chunk_conf <mean>"]} for item in report_rows if item["strategy"] == "oracle"]
    assert _shown(rows, 120).count("oracle: scored by chunk_conf <mean>") == 1
    assert render(rows, {}).count("<li>oracle: scored by chunk_conf &lt;mean&gt;</li>") == 1
