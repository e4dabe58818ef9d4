from __future__ import annotations

from importlib import import_module
from typing import Any

import pandas as pd
import pytest

from fairlead.dashboard.boards.downloads import escape_downloads

BAD = '<script>"&"</script>'
ESCAPED = "&lt;script&gt;&quot;&amp;&quot;&lt;/script&gt;"


@pytest.fixture
def parts() -> Any:
    escape_downloads()
    escape_downloads()  # a second time does nothing
    return import_module("explainerdashboard.to_html")


def test_every_part_that_takes_text(parts: Any) -> None:
    pages = [
        parts.title(BAD),
        parts.table_from_df(pd.DataFrame({BAD: [BAD, "x"]})),
        parts.input(BAD, BAD, disabled=True),
        parts.tabs({BAD: "content"}),
        parts.card("content", title=BAD, subtitle=BAD),
        parts.card(f"Selected index: <b>{BAD}</b>", title="t"),
        parts.hide(f"Selected: <b>{BAD}</b>", hide=False),
    ]

    for page in pages:
        assert BAD not in page
        assert ESCAPED in page
        assert "&amp;lt;" not in page


def test_parts_of_parts_are_left_as_they_are(parts: Any) -> None:
    table = parts.table_from_df(pd.DataFrame({"a": [1.5]}))

    assert table in parts.card(table, title="t")
    assert parts.hide(table) == table
    assert table not in parts.hide(table, hide=True)
    assert "None" not in parts.card(table)
