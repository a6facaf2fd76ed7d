"""Curves as SVG, without a library."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from fewlabels.report.markup import Markup, tag
from fewlabels.report.style import STYLE

WIDTH, HEIGHT = 400, 210
LEFT, RIGHT, TOP, BOTTOM = 40, 10, 10, 24
COLOURS = ("var(--a)", "var(--b)", "var(--c)", "var(--d)")
MOST = 300
"""Points of a curve that are drawn; of more, means of neighbours."""


class Series(NamedTuple):
    """A named curve."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    faint: bool = False
    """Drawn with dashes, as what is compared with."""


def thinned(series: Series) -> Series:
    """At most `MOST` points, each the mean of as many neighbours; the last point stays."""
    size = math.ceil(len(series.x) / MOST)
    if size <= 1:
        return series
    starts = range(0, len(series.x), size)
    x = [max(series.x[i : i + size]) for i in starts]
    y = [sum(series.y[i : i + size]) / len(series.y[i : i + size]) for i in starts]
    return series._replace(x=x, y=y)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from about `low` to about `high`, at most `most` and one more."""
    span = (high - low) or 1.0
    raw = span / most
    unit = 10 ** math.floor(math.log10(raw))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= raw * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def plain(value: float) -> str:
    """A number on an axis: ``0.5``, ``120``, ``15k``, ``1.05M``."""
    for unit, factor in (("M", 1e6), ("k", 1e3)):
        if abs(value) >= 10 * factor or (unit == "M" and abs(value) >= factor):
            return f"{value / factor:.4g}{unit}"
    return f"{value:.4g}"


class _Frame:
    """Axes of a plot: where a value lies, and the lines and numbers around."""

    def __init__(self, x: Sequence[float], y: Sequence[float], end: float) -> None:
        """Numbers along both axes; `end` is where the horizontal one ends, which begins with its first number."""
        self.xs, self.ys, self.end = [value for value in x if value <= end], y, end

    def at(self, x: float, y: float) -> str:
        x0, y0, y1 = self.xs[0], self.ys[0], self.ys[-1]
        across = LEFT + (x - x0) / ((self.end - x0) or 1) * (WIDTH - LEFT - RIGHT)
        down = HEIGHT - BOTTOM - (y - y0) / ((y1 - y0) or 1) * (HEIGHT - TOP - BOTTOM)
        return f"{across:.1f},{down:.1f}"

    def lines(self) -> list[Markup]:
        out = []
        for y in self.ys:
            down = self.at(self.xs[0], y).split(",")[1]
            out.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=down, y2=down, class_="grid"))
            out.append(tag("text", plain(y), x=LEFT - 5, y=float(down) + 3.5, text_anchor="end"))
        for i, x in enumerate(self.xs):
            across = self.at(x, self.ys[0]).split(",")[0]
            anchor = "end" if i and x > 0.95 * self.end else "middle"
            out.append(tag("text", plain(x), x=across, y=HEIGHT - 8, text_anchor=anchor))
        return out


def _figure(title: str, said: str, drawn: Sequence[Markup], keys: Sequence[tuple[str, str, bool]]) -> Markup:
    """keys: colour, words, and whether the line has dashes."""
    plot = tag("svg", *drawn, viewBox=f"0 0 {WIDTH} {HEIGHT}", role="img", aria_label=said)
    marks = (
        tag(
            "li", tag("i", style=f"border-top-color:{colour};border-top-style:{'dashed' if dashed else 'solid'}"), words
        )
        for colour, words, dashed in keys
    )
    return tag("figure", tag("figcaption", title), plot, tag("ul", *marks, class_="keys"), class_="chart")


class Drawing(str):
    """An SVG file that needs nothing else; a notebook shows it."""

    __slots__ = ()

    def _repr_svg_(self) -> str:
        return str(self)


def drawing(every: Sequence[Series], *, unit: str = "", whole: bool = False) -> Drawing:
    """`curves` as a file of their own, on white, with the names below."""
    drawn, keys = _curves(every, unit, whole)
    colours = re.search(r":root\{color-scheme:[^;]*;(.*?)\}", STYLE, re.S)
    assert colours is not None
    rules = [f".chart{{{colours[1]}}}", *(f".chart{rule}" for rule in re.findall(r"^svg( .*)$", STYLE, re.M))]
    below = [
        tag("text", f"\N{EM DASH} {words}", x=LEFT, y=HEIGHT + 12 + 14 * i, style=f"fill:{colour}")
        for i, (colour, words, _) in enumerate(keys)
    ]
    size = {"width": 1.5 * WIDTH, "viewBox": f"0 0 {WIDTH} {HEIGHT + 14 * len(keys) + 6}"}
    paper = tag("rect", width="100%", height="100%", style="fill:var(--paper)")
    style = tag("style", Markup("".join(rules)))
    face = {"font_family": "system-ui, sans-serif", "class_": "chart", "xmlns": "http://www.w3.org/2000/svg"}
    return Drawing(tag("svg", style, paper, *drawn, *below, **size, **face))


def curves(title: str, every: Sequence[Series], *, unit: str = "", whole: bool = False) -> Markup:
    """Curves over the steps, with their last values beside their names.

    unit: behind these values. whole: the axis goes from 0 to 100.
    """
    drawn, keys = _curves(every, unit, whole)
    return _figure(title, f"{title} over the steps: {', '.join(words for _, words, _ in keys)}", drawn, keys)


def _curves(every: Sequence[Series], unit: str, whole: bool) -> tuple[list[Markup], list[tuple[str, str, bool]]]:
    """What is drawn, and the keys as of `_figure`."""
    y = [value for series in every for value in series.y]
    high = max(max(y), 1e-9)
    end = max(value for series in every for value in series.x)
    frame = _Frame(ticks(0, end), ticks(0, 100, 5) if whole else ticks(min(0.0, *y), high, 4), end)
    drawn: list[Markup] = frame.lines()
    keys: list[tuple[str, str, bool]] = []
    for i, series in enumerate(every):
        colour = "var(--e)" if series.faint else COLOURS[i % len(COLOURS)]
        dashed = series.faint or i // len(COLOURS) % 2 == 1
        few = thinned(series)
        last = f"{series.name} {series.y[-1]:.1f} {unit}" if unit else f"{series.name} {series.y[-1]:.3g}"
        keys.append((colour, last.strip(), dashed))
        dash = "4 3" if dashed else None
        points = [frame.at(a, b) for a, b in zip(few.x, few.y, strict=True)]
        style = f"stroke:{colour}"
        drawn.append(tag("polyline", tag("title", last), points=" ".join(points), style=style, stroke_dasharray=dash))
        if len(points) <= 2:
            spots = (point.split(",") for point in points)
            drawn += [tag("circle", cx=a, cy=b, r=2.5, style=f"fill:{colour}") for a, b in spots]
    return drawn, keys


def calibration(bins: Sequence[Sequence[float]]) -> Markup:
    """How often answers are right, by confidence; `bins` as `calibration.reliability` has them."""
    n = sum(count for count, _, _ in bins)
    frame = _Frame(ticks(0, 100, 5), ticks(0, 100, 5), 100)
    drawn = frame.lines()
    base = float(frame.at(0, 0).split(",")[1])
    for i, (count, right, sure) in enumerate(bins):
        if not count:
            continue
        left, top = map(float, frame.at(100 * i / len(bins), 100 * right / count).split(","))
        end = float(frame.at(100 * (i + 1) / len(bins), 0).split(",")[0])
        said = f"{count:.0f} pictures, confidence {100 * sure / count:.1f} %, right {100 * right / count:.1f} %"
        drawn.append(
            tag(
                "rect",
                tag("title", said),
                x=f"{left + 1:.1f}",
                y=f"{top:.1f}",
                width=f"{end - left - 2:.1f}",
                height=f"{max(base - top, 1):.1f}",
                style=f"fill:var(--a);fill-opacity:{0.25 + 0.75 * math.sqrt(count / n):.2f}",
            )
        )
    ends = f"{frame.at(0, 0)} {frame.at(100, 100)}"
    drawn.append(tag("polyline", points=ends, style="stroke:var(--e)", stroke_dasharray="4 3"))
    keys = [
        ("var(--a)", "right, in %, by confidence in %; the stronger, the more pictures", False),
        ("var(--e)", "as it should be", True),
    ]
    return _figure("Right answers by confidence", "share of right answers by confidence", drawn, keys)
