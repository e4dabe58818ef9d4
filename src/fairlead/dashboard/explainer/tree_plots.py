"""Pictures of single trees: what each of them predicts, and one of them drawn with the way of a row through it.

Layer L3; plotly is imported when it is drawn with.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from fairlead.dashboard.explainer.attribution import Array
    from fairlead.dashboard.explainer.decision_trees import DecisionTrees
    from fairlead.dashboard.explainer.tree_columns import Column

_BLUE, _RED, _GREEN, _GREY = "#3780bf", "#db4052", "#32a852", "#9aa0a6"
# A tree with more leaves is drawn as the way of the row, and what branches off from it.
_MOST_LEAVES = 16
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _LINE = 176, 46, 10, 34, 17
_MOST_LETTERS = 27
# What is written on a line is set off from it.
_HALO = f'fill="{_GREY}" stroke="#fff" stroke-width="4" paint-order="stroke"'


@dataclass(frozen=True)
class Scale:
    """What predictions are written as.

    Parameters
    ----------
    factor : 100 of a probability.
    unit : behind a number.
    axis : what they are predictions of.
    """

    factor: float
    unit: str
    axis: str

    def text(self, value: float, signed: bool = False) -> str:
        """Write a prediction.

        >>> Scale(100, "%", "").text(0.25, signed=True)
        '+25%'
        """
        return f"{self.factor * value:{'+' if signed else ''}.4g}{self.unit}"


def bars_of_mean(predictions: Array, scale: Scale, observed: float | None, highlighted: int | None) -> Any:
    """Draw what each tree of a forest predicts, sorted, and their mean."""
    order = np.argsort(predictions, kind="stable")
    figure = _bars(
        heights=scale.factor * predictions[order],
        bases=np.zeros(len(order)),
        colors=[_RED if tree == highlighted else _BLUE for tree in order.tolist()],
        texts=[f"tree no {tree}:<br>prediction = {scale.text(predictions[tree])}" for tree in order.tolist()],
        axes=("decision trees, sorted by prediction", scale.axis),
    )
    return _lined(figure, scale, "average prediction", float(predictions.mean()), observed)


def bars_of_sum(
    predictions: Array, scale: Scale, observed: float | None, highlighted: int | None, is_good: bool
) -> Any:
    """Draw by how much each tree of a boosted ensemble moves the prediction.

    Parameters
    ----------
    predictions : before the first and after each, shape (n_trees + 1,).
    is_good : whether more is better, and green.
    """
    changes = np.diff(predictions)
    figure = _bars(
        heights=scale.factor * changes,
        bases=scale.factor * predictions[:-1],
        colors=[
            _BLUE if tree == highlighted else _GREEN if (change > 0) == is_good else _RED
            for tree, change in enumerate(changes)
        ],
        texts=[f"tree no {tree}:<br>change = {scale.text(change, True)}" for tree, change in enumerate(changes)],
        axes=("decision trees, one after the other", scale.axis),
    )
    return _lined(figure, scale, "prediction", float(predictions[-1]), observed)


def _bars(heights: Array, bases: Array, colors: list[str], texts: list[str], axes: tuple[str, str]) -> Any:
    import plotly.graph_objects as go

    texts = [f"{text}<br>click for detailed info" for text in texts]  # a click is known by `tree no`
    bars = go.Bar(
        x=np.arange(len(heights)), y=heights, base=bases, marker_color=colors, text=texts, textposition="none",
        hoverinfo="text",
    )  # fmt: skip
    layout = go.Layout(plot_bgcolor="#fff", xaxis={"title": axes[0]}, yaxis={"title": axes[1]}, bargap=0.1)
    return go.Figure([bars], layout)


def _lined(figure: Any, scale: Scale, name: str, value: float, observed: float | None) -> Any:
    for what, height, color, side in ((name, value, _GREY, "top right"), ("observed", observed, _RED, "top left")):
        if height is not None:
            figure.add_hline(
                scale.factor * height, line={"color": color, "width": 2, "dash": "dot"},
                annotation={"text": f"{what} = {scale.text(height)}", "bgcolor": "#fff"}, annotation_position=side,
            )  # fmt: skip
    return figure


@dataclass
class _Box:
    """A node as it is drawn.

    Parameters
    ----------
    lines : its text.
    depth : below the root.
    passed : whether the way of the row leads through it.
    below : what is drawn below it, left and right.
    """

    lines: tuple[str, ...]
    depth: int
    passed: bool
    below: list[_Box] = field(default_factory=list)
    x: float = 0.0


def drawn(trees: DecisionTrees, columns: Sequence[Column], tree: int, label: int, row: Array, scale: Scale) -> str:
    """Draw a tree and the way of a row through it: the address of an SVG, as an image takes it."""
    number, values = trees.tree(tree, label)
    is_whole = trees.n_leaves(number) <= _MOST_LEAVES

    def box(node: int, depth: int, passed: bool) -> _Box:
        value = scale.text(float(values[node]))
        split = trees.split(number, node)
        if split is None:
            return _Box((value,), depth, passed)
        if not passed and not is_whole:
            return _Box(("…", f"{value} on average"), depth, passed)
        column = trees.column(number, node)
        to_left = split.sends_left(row[column])
        left, right = trees.children(number, node)
        below = [box(left, depth + 1, passed and to_left), box(right, depth + 1, passed and not to_left)]
        return _Box((f"{columns[column].question(split)}?", value), depth, passed, below)

    root = box(0, 0, True)
    width = _place(root, 0) * (_WIDTH + _GAP_X)
    height = (_depth(root) + 1) * (_HEIGHT + _GAP_Y)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
        f'font-size="12" text-anchor="middle">{"".join(_svg(root))}</svg>'
    )
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def _place(box: _Box, left: int) -> int:
    """Place a box above the middle of what is below it, and give the first place that is free to the right."""
    if not box.below:
        box.x = (left + 0.5) * (_WIDTH + _GAP_X)
        return left + 1
    for one in box.below:
        left = _place(one, left)
    box.x = sum(one.x for one in box.below) / 2
    return left


def _depth(box: _Box) -> int:
    return max(map(_depth, box.below), default=box.depth)


def _svg(box: _Box) -> Iterator[str]:
    top = box.depth * (_HEIGHT + _GAP_Y)
    for one, answer in zip(box.below, ("yes", "no"), strict=False):
        middle, down = (box.x + one.x) / 2, top + _HEIGHT + _GAP_Y
        yield f'<path d="M{box.x:.0f} {top + _HEIGHT}L{one.x:.0f} {down}" {_stroke(one.passed)}/>'
        yield f'<text x="{middle:.0f}" y="{down - _GAP_Y / 2:.0f}" {_HALO}>{answer}</text>'
        yield from _svg(one)
    yield (
        f'<rect x="{box.x - _WIDTH / 2:.0f}" y="{top + 1}" width="{_WIDTH}" height="{_HEIGHT - 2}" rx="4" fill="#fff" '
        f"{_stroke(box.passed)}/>"
    )
    for line, text in enumerate(box.lines):
        cut = text if len(text) <= _MOST_LETTERS else f"{text[: _MOST_LETTERS - 1]}…"
        base = top + _HEIGHT / 2 + 4 + _LINE * (line - (len(box.lines) - 1) / 2)
        yield f'<text x="{box.x:.0f}" y="{base:.0f}">{escape(cut)}</text>'


def _stroke(passed: bool) -> str:
    return f'stroke="{_RED if passed else _GREY}" stroke-width="{3 if passed else 1}"'
