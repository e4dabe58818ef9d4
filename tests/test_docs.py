"""The pages in docs/ are run, and leave no flag, no field of a schema and no status untold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

from fairlead.bundle.compile import steps
from fairlead.cli import app
from fairlead.schema import Feature, Schema
from fairlead.web.problems import STATUS
from pages import COMMANDS, ROOT, blocks_of, run_page

DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
# The list of pages has no commands, and those of the benchmarks take half an hour.
RUN = [page for page in PAGES if page.name not in ("index.md", "benchmarks.md")]


def told(*names: str) -> str:
    return "\n".join((DOCS / name).read_text(encoding="utf-8") for name in names)


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.stem)
def test_page_runs_as_it_stands(page: Path, tmp_path: Path, free_port: int) -> None:
    assert any(language in COMMANDS for language, _ in blocks_of(page, free_port))
    assert run_page(page, free_port, tmp_path / "fairlead", timeout_s=280) >= 1


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)]+)", page.read_text(encoding="utf-8")):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [heading.lower().replace(" ", "-") for heading in headings], link


def test_index_names_every_page() -> None:
    assert [page.name for page in PAGES if f"({page.name})" not in told("index.md")] == ["index.md"]


def test_every_flag_and_command_is_told() -> None:
    pages = told("bundle.md", "web.md", "models.md", "batch.md", "stream.md", "dashboard.md")
    commands = dict(commands_of("fairlead", app))
    assert {"fairlead build", "fairlead serve", "fairlead dashboard build"} <= commands.keys()
    for name, command in commands.items():
        assert name in pages
        flags = [flag for parameter in command.params for flag in parameter.opts if flag.startswith("--")]
        assert [flag for flag in flags if flag != "--help" and not re.search(rf"{flag}(?![\w-])", pages)] == [], name


def commands_of(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Give a command and those below it, by how they are called."""
    yield name, command
    if isinstance(command, click.Group):
        for own, below in command.commands.items():
            yield from commands_of(f"{name} {own}", below)


def test_every_guarantee_of_a_stream_has_its_test() -> None:
    named = set(re.findall(r"`(test_\w+)`", told("stream.md")))
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests" / "stream").rglob("test_*.py"))
    assert len(named) > 10
    assert {name for name in named if f"def {name}(" not in tests} == set()


@pytest.mark.parametrize("struct", [Feature, Schema])
def test_every_field_of_a_schema_is_told(struct: type[msgspec.Struct]) -> None:
    section = told("bundle.md").partition("## Schema")[2].partition("## Outputs")[0]
    names = [field.name for field in msgspec.structs.fields(struct)]
    assert [name for name in names if not re.search(rf"^\|.*`{name}`.*\|", section, re.MULTILINE)] == []


def test_every_status_is_told() -> None:
    rows = re.findall(r"^\| (\d{3}) \| `(\w+)`", told("web.md"), re.MULTILINE)
    assert {code: int(status) for status, code in rows} == STATUS


def test_every_class_with_a_compiled_form_is_told() -> None:
    listed = told("compile.md").partition("<!-- steps -->")[2].partition("<!-- /steps -->")[0]
    names = {name.split(".", 1)[1] for table in steps.tables() for name in table if not name.startswith("fairlead.")}
    assert set(re.findall(r"`(\w+)`", listed)) == names, "run scripts/parity_table.py"
