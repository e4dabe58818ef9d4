"""The requests per second of each service as a picture: bars on a logarithmic scale, for light and dark pages."""

from __future__ import annotations

import html
import math

from figures import Figures, Measured
from targets import speed

CONNECTIONS = 32
WIDTH, LEFT, RIGHT, TOP, ROW, BAR = 760, 170, 84, 58, 30, 18
LOWEST = 10

PICTURE = """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" \
role="img" aria-label="requests per second of each service">
<style>
  text {{ font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328 }}
  .title {{ font-weight: 600; font-size: 15px }}
  .quiet, .tick {{ fill: #59636e; font-size: 12px }}
  .own text {{ font-weight: 600 }}
  line {{ stroke: #d1d9e0 }}
  .own rect {{ fill: #0a7f5a }}
  .peer rect {{ fill: #8c96a3 }}
  .ceiling rect {{ fill: none; stroke: #8c96a3; stroke-dasharray: 4 3 }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6edf3 }}
    .quiet, .tick {{ fill: #9198a1 }}
    line {{ stroke: #3d444d }}
    .own rect {{ fill: #2fbf8f }}
    .peer rect {{ fill: #6b7684 }}
    .ceiling rect {{ stroke: #9198a1 }}
  }}
</style>
<text class="title" x="12" y="22">Requests per second, {connections} connections</text>
<text class="quiet" x="12" y="41">{told}</text>
{grid}
{bars}
</svg>
"""
LINE = '<line x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/><text class="tick" x="{x:.1f}" y="{label}" \
text-anchor="middle">{text}</text>'
ROW_OF = """<g class="{role}"><text x="{name_x}" y="{text_y}" text-anchor="end">{name}</text>\
<rect x="{left}" y="{bar_y}" width="{length:.1f}" height="{bar}" rx="2"/>\
<text x="{value_x:.1f}" y="{text_y}">{value}</text></g>"""


def draw(found: Figures) -> str:
    """Draw everyone that was measured over 32 connections, the fastest first."""
    shown = sorted((one for one in found.peers.values() if one.of(CONNECTIONS)), key=_speed, reverse=True)
    decades = _decades(shown)
    bottom = TOP + ROW * len(shown)
    bars = [_bar(one, index, decades) for index, one in enumerate(shown)]
    return PICTURE.format(
        width=WIDTH,
        height=bottom + 30,
        connections=CONNECTIONS,
        told=html.escape(
            f"one customer a request, forest of 100 trees, {found.machine.cores} cores; logarithmic scale"
        ),
        grid="\n".join(_line(power, decades, bottom) for power in range(1, decades + 1)),
        bars="\n".join(bars),
    )


def _speed(one: Measured) -> float:
    return one.median(CONNECTIONS, speed) or 0


def _decades(shown: list[Measured]) -> int:
    """Give the power of ten that is above every bar."""
    return max(2, math.ceil(math.log10(max((_speed(one) for one in shown), default=100) or 100)))


def _x(value: float, decades: int) -> float:
    share = math.log10(max(value, LOWEST) / LOWEST) / (decades - 1)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _line(power: int, decades: int, bottom: int) -> str:
    x = _x(10**power, decades)
    return LINE.format(x=x, top=TOP - 4, bottom=bottom, label=bottom + 18, text=f"{10**power:,}")


def _bar(one: Measured, index: int, decades: int) -> str:
    bar_y = TOP + ROW * index + (ROW - BAR) // 2
    end = _x(_speed(one), decades)
    return ROW_OF.format(
        role=one.role,
        name=html.escape(one.title.replace("*", "").replace("`", "")),
        name_x=LEFT - 10,
        text_y=bar_y + BAR - 4,
        left=LEFT,
        bar_y=bar_y,
        length=max(end - LEFT, 1),
        bar=BAR,
        value_x=end + 7,
        value=f"{_speed(one):,.0f}",
    )
