"""Pages of a dashboard as HTML, with every text in them escaped.

explainerdashboard writes such a page when somebody downloads one, and puts titles, categories, and what rows are called
into it as they are: a category called ``<script>`` would run on the computer of whoever opens it. Layer L3.
"""

from __future__ import annotations

import re
from functools import wraps
from html import escape
from importlib import import_module
from typing import Any

from fairlead.dashboard.environment import library

_SELECTED = re.compile(r"(Selected(?: index)?: <b>)(.*)(</b>)", re.DOTALL)


def escape_downloads() -> None:
    """Have the parts that explainerdashboard makes a page of escape what they are given; once for the process."""
    library()
    parts = import_module("explainerdashboard.to_html")
    if hasattr(parts.title, "__wrapped__"):
        return
    for name, escaped in {
        "title": _texts, "table_from_df": _table, "input": _texts, "tabs": _tabs, "card": _card, "hide": _selected,
    }.items():  # fmt: skip
        setattr(parts, name, escaped(getattr(parts, name)))


def _texts(part: Any) -> Any:
    @wraps(part)
    def _write(*texts: Any, **options: Any) -> Any:
        return part(*(text if text is None else escape(str(text)) for text in texts), **options)

    return _write


def _table(part: Any) -> Any:
    @wraps(part)
    def _write(frame: Any) -> Any:
        written = frame.astype(object).map(lambda value: escape(str(value)))
        return part(written.set_axis([escape(str(name)) for name in frame.columns], axis=1))

    return _write


def _tabs(part: Any) -> Any:
    @wraps(part)
    def _write(tabs: dict[str, str]) -> Any:
        return part({escape(title): content for title, content in tabs.items()})

    return _write


def _card(part: Any) -> Any:
    @wraps(part)
    def _write(content: str, title: str | None = None, subtitle: str | None = None, **options: Any) -> Any:
        heads = (text if text is None else escape(str(text)) for text in (title, subtitle))
        return part(_chosen(content), *heads, **options)

    return _write


def _selected(part: Any) -> Any:
    @wraps(part)
    def _write(content: str, hide: bool = False) -> Any:
        return part(_chosen(content), hide)

    return _write


def _chosen(content: str) -> str:
    """Escape what the row is called that a page is of, where that is all there is."""
    match = _SELECTED.fullmatch(content)
    return content if match is None else match[1] + escape(match[2]) + match[3]
