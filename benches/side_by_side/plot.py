"""The plot: throughput as ratio to direct Redis as bars, and latency at a fixed rate as dots. Plain SVG, legible on white and on black."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape

from .targets import DIRECT

# Mid tones, which stand out from a light and from a dark page.
INK = "#768390"
FAINT = "#76839055"
ON_BARS = "#0d1117"
COLORS = {DIRECT: INK, "tideover": "#2f81f7", "haproxy": "#d29922", "nutcracker": "#a371f7"}
WIDTH, MARGIN = 960, 12
LABELS_WIDTH = 130
BARS_LEFT, BARS_WIDTH = MARGIN + LABELS_WIDTH, 420
DOTS_LEFT, DOTS_WIDTH = 620, WIDTH - 620 - 2 * MARGIN
TOP, BOTTOM = 74, 34
BAR_HEIGHT, GROUP_GAP = 11, 9
NUMBER_WIDTH = 30
RATIO_TICKS = [0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0]
RATIO_MAX = 2.0


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 11, fill: str = INK, weight: str = "normal") -> str:
    attributes = f'text-anchor="{anchor}" font-size="{size}" fill="{fill}" font-weight="{weight}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(words)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, stroke: str, extra: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{stroke}" {extra}/>'


class Ratios:
    """The x of a ratio; what lies beyond the end is cut there, its number says it."""

    def __init__(self, results: dict):
        highest = max(row["ratio_to_direct"] for result in results.values() for row in result["targets"].values())
        self.end = min(RATIO_MAX, max(1.25, math.ceil(highest * 4) / 4))

    def x(self, ratio: float) -> float:
        return BARS_LEFT + BARS_WIDTH * min(ratio, self.end) / self.end


class Latencies:
    """The x of a latency in milliseconds, on a logarithmic scale of whole decades."""

    def __init__(self, results: dict):
        all_ms = [row["at_rate"]["p99_us"] / 1e3 for result in results.values() for row in result["targets"].values()]
        self.first, self.last = math.floor(math.log10(min(all_ms))), math.ceil(math.log10(max(all_ms)))
        self.last = max(self.last, self.first + 1)

    def x(self, ms: float) -> float:
        return DOTS_LEFT + DOTS_WIDTH * (math.log10(ms) - self.first) / (self.last - self.first)

    def decades(self) -> list[float]:
        return [10.0**power for power in range(self.first, self.last + 1)]


def legend(targets: list[str]) -> Iterator[str]:
    x = MARGIN
    for name in targets:
        color = COLORS[name]
        shape = f'<circle cx="{x + 6}" cy="16" r="4" fill="none" stroke="{color}" stroke-width="1.5"/>'
        yield shape if name == DIRECT else f'<rect x="{x}" y="10" width="12" height="12" rx="2" fill="{color}"/>'
        yield text(x + 17, 20, "direct Redis" if name == DIRECT else name, size=12)
        x += 34 + 7 * len("direct Redis" if name == DIRECT else name)


def axes(ratios: Ratios, latencies: Latencies, bottom: float) -> Iterator[str]:
    yield text(BARS_LEFT, 44, "Throughput, direct Redis = 1.00 (longer is better)", size=12, weight="bold")
    yield text(DOTS_LEFT, 44, "p99 at a fixed rate, ms (left is better)", size=12, weight="bold")
    for tick in RATIO_TICKS:
        if tick <= ratios.end:
            yield line(ratios.x(tick), TOP - 10, ratios.x(tick), bottom, FAINT)
            yield text(ratios.x(tick), TOP - 14, f"{tick:.2f}", "middle", 10)
    yield line(ratios.x(1.0), TOP - 10, ratios.x(1.0), bottom, INK, 'stroke-width="1.5" stroke-dasharray="4 3"')
    for decade in latencies.decades():
        yield line(latencies.x(decade), TOP - 10, latencies.x(decade), bottom, FAINT)
        yield text(latencies.x(decade), TOP - 14, f"{decade:g}", "middle", 10)


def bars(result: dict, proxies: list[str], y: float, ratios: Ratios) -> Iterator[str]:
    for number, name in enumerate(proxies):
        top, row = y + number * BAR_HEIGHT, result["targets"].get(name)
        baseline = top + BAR_HEIGHT - 2.5
        if row is None:
            yield text(BARS_LEFT + 4, baseline, f"{name} {'cannot' if name in result['workload']['cannot'] else 'failed'}", size=9)
            continue
        end = ratios.x(row["ratio_to_direct"])
        yield f'<rect x="{BARS_LEFT}" y="{top:.1f}" width="{end - BARS_LEFT:.1f}" height="{BAR_HEIGHT - 1}" rx="1.5" fill="{COLORS[name]}"/>'
        number_of_it = f"{row['ratio_to_direct']:.2f}"
        if end - BARS_LEFT >= NUMBER_WIDTH:
            yield text(end - 4, baseline, number_of_it, "end", 9, ON_BARS, "bold")
        else:
            yield text(end + 4, baseline, number_of_it, size=9, fill=COLORS[name])


def dots(result: dict, targets: list[str], y: float, height: float, latencies: Latencies) -> Iterator[str]:
    """Each on a line of its own, so that none hides another; direct Redis as a ring. Hollow squares: the rate was not held."""
    step = height / len(targets)
    for number, name in enumerate(targets):
        row, middle = result["targets"].get(name), y + step * (number + 0.5)
        if row is None:
            continue
        x, color = latencies.x(row["at_rate"]["p99_us"] / 1e3), COLORS[name]
        yield line(DOTS_LEFT, middle, x, middle, FAINT)
        if not row["rate_held"]:
            yield f'<rect x="{x - 3:.1f}" y="{middle - 3:.1f}" width="6" height="6" fill="none" stroke="{color}" stroke-width="1.5"/>'
        elif name == DIRECT:
            yield f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="3.5" fill="none" stroke="{color}" stroke-width="1.5"/>'
        else:
            yield f'<circle cx="{x:.1f}" cy="{middle:.1f}" r="4" fill="{color}"/>'


def svg(document: dict) -> str:
    """`document` is what `report` writes as JSON."""
    results, targets = document["results"], document["targets"]
    proxies = [name for name in targets if name != DIRECT]
    group = BAR_HEIGHT * max(1, len(proxies))
    bottom = TOP + len(results) * (group + GROUP_GAP)
    ratios, latencies = Ratios(results), Latencies(results)
    parts = [*legend(targets), *axes(ratios, latencies, bottom)]
    for number, (name, result) in enumerate(results.items()):
        y = TOP + number * (group + GROUP_GAP)
        parts.append(text(BARS_LEFT - 8, y + group / 2 + 4, name, "end"))
        parts += [*bars(result, proxies, y, ratios), *dots(result, targets, y, group, latencies)]
    note = "A rate that was not held is a hollow square. Medians of alternating rounds on one machine."
    parts.append(text(MARGIN, bottom + 18, note, size=10))
    height = bottom + BOTTOM
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    font = 'font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif"'
    return "\n".join([f"{head} {font}>", *parts, "</svg>"]) + "\n"
