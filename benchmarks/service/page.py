"""The figures as Markdown, between the markers of a page."""

from __future__ import annotations

from pathlib import Path

import targets
from figures import CONNECTIONS, Figures, Measured
from targets import Target

# With fewer answers than this on each connection, those who waited longest are not among them.
ROUNDS = 4
UNSETTLED = " †"
UNSETTLED_TOLD = f"†: fewer than {ROUNDS} answers a connection; the percentiles leave out who still waited at the end."
BEGIN, END = "<!-- service -->", "<!-- /service -->"
NEW_PAGE = f"""# The web service against its peers

`make bench` measures `fairlead serve` and other ways to put the same model behind HTTP, on one machine, and writes
what stands below. The model is a `ColumnTransformer` (one-hot and scaled columns) with a `RandomForestClassifier(100)`
on the Telco churn data; a request is one customer as JSON, in the protocol of the service that is asked. Before a
service is loaded, {{checked}} of its answers are compared with scikit-learn's own.

The load generator shares the machine with the service, so a number is of that machine and of no other; what carries
over is the ratio. The echo has no model: it is what uvicorn itself can do. The peers run with the settings named below
the tables; whoever knows better ones finds each peer in a file of its own in `benchmarks/service/peers/`.

{BEGIN}
{END}
"""


def write(path: Path, picture: str, found: Figures) -> None:
    """Put the tables between the markers; what is around them stays.

    Raises
    ------
    SystemExit
        When the page has no markers.
    """
    text = path.read_text(encoding="utf-8") if path.is_file() else NEW_PAGE.format(checked=64)
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{path}: expected the markers {BEGIN} and {END}")
    path.write_text(f"{before}{BEGIN}\n\n{_render(picture, found)}\n\n{END}{after}", encoding="utf-8")


def _render(picture: str, found: Figures) -> str:
    parts = [_machine(found), f"![requests per second of each service, 32 connections]({picture})", _targets(found)]
    parts += [_table(found, connections) for connections in CONNECTIONS]
    return "\n\n".join([*parts, _settings(found)])


def _machine(found: Figures) -> str:
    machine = found.machine
    cores = f"{machine.cores} cores of {machine.cpu}, {machine.kernel}, Python {machine.python}, wrk {machine.wrk}"
    turns = max((len(one.of(count)) for one in found.peers.values() for count in CONNECTIONS), default=0)
    return (
        f"{cores}; load {machine.load:.2f} before the start. {found.data}. fairlead and the echo in turns, "
        f"the median of {turns}; the others once. Ratios of the two are taken turn by turn."
    )


def _targets(found: Figures) -> str:
    lines = ["| fairlead | measured | target | held |", "|---|--:|--:|---|"]
    return "\n".join([*lines, *map(_target, targets.all_of(found))])


def _target(one: Target) -> str:
    held = {True: "yes", False: "**no**", None: "not measured"}[one.held]
    value = (
        "–"
        if one.found is None
        else f"{one.found:.3g}{one.unit}"
        if one.found < 1000
        else f"{one.found:,.0f}{one.unit}"
    )
    return f"| {one.what} | {value} | {'≤' if one.is_upper else '≥'} {one.bound:g}{one.unit} | {held} |"


def _table(found: Figures, connections: int) -> str:
    heading = f"### {connections} connection{'s' if connections > 1 else ''}"
    head = "| | requests/s | p50 ms | p99 ms | errors | fairlead is faster by | of the echo |"
    rows = sorted(found.peers.values(), key=lambda one: -(one.median(connections, targets.speed) or 0))
    lines = [_row(found, one, connections) for one in rows]
    table = "\n".join([heading, "", head, "|---|--:|--:|--:|--:|--:|--:|", *lines])
    return f"{table}\n\n{UNSETTLED_TOLD}" if UNSETTLED in table else table


def _row(found: Figures, one: Measured, connections: int) -> str:
    speed = one.median(connections, targets.speed)
    if speed is None:
        return f"| {one.title} | {_failure(one) or 'not measured'} | | | | | |"
    p50, p99 = (one.median(connections, read) for read in (targets.p50, targets.p99))
    errors = targets.errors(found, one.name, connections)
    faster = targets.ratio(found, targets.OWN, one.name, connections, targets.speed)
    of_echo = targets.ratio(found, one.name, targets.ECHO, connections, targets.speed)
    mark = UNSETTLED if any(run.requests < ROUNDS * connections for run in one.of(connections)) else ""
    cells = [f"{speed:,.0f}", f"{_ms(p50)}{mark}", f"{_ms(p99)}{mark}", f"{errors:,.0f}"]
    cells += ["" if one.name == targets.OWN else _number(faster, " ×"), _number(of_echo, "")]
    return f"| {one.title} | {' | '.join(cells)} |"


def _settings(found: Figures) -> str:
    lines = ["### Settings", "", "| | | versions | measured |", "|---|---|---|---|"]
    for one in found.peers.values():
        versions = ", ".join(f"{name} {version}" for name, version in one.versions.items())
        turns = max(len(one.of(count)) for count in CONNECTIONS)
        taken = f"{turns} × {one.seconds} s" if turns else ""
        measured = ", ".join(filter(None, [one.date, taken, _failure(one)]))
        told = "; ".join(filter(None, [one.settings, one.note]))
        lines.append(f"| {one.title} | {told} | {versions} | {measured} |")
    return "\n".join(lines)


def _failure(one: Measured) -> str:
    """Tell that it failed, even where an earlier turn gave a figure."""
    return f"failed: {_cell(one.failed)}" if one.failed else ""


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")[:240]


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _number(value: float | None, unit: str) -> str:
    return "–" if value is None else f"{value:,.0f}{unit}" if value >= 100 else f"{value:.2g}{unit}"
