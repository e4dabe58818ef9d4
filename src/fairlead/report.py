"""What the command tells a person of a bundle.

Layer L5, beside `cli`.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fairlead.bundle.disk import size_text
from fairlead.bundle.manifest import Manifest
from fairlead.bundle.read import Bundle
from fairlead.predict.forest import TREES
from fairlead.schema import Feature, Output

if TYPE_CHECKING:
    from fairlead.batch.report import FileReport, Report
    from fairlead.dashboard.boards.memory import Measured
    from fairlead.stream.progress import Status
    from fairlead.web.runners import Placement

_MOST_CATEGORIES = 6
_MOST_FILES = 20


def built(path: Path, manifest: Manifest) -> str:
    """Tell what a build made, in a few lines."""
    lines = [f"{path}: {manifest.name} {manifest.version}, {len(manifest.schema.features)} features"]
    lines.append(_engine(manifest))
    lines.append(f"answers {', '.join(_output(output) for output in manifest.outputs)}")
    lines.append(f"serve it with: fairlead serve {path}")
    return "\n".join(lines)


def as_json(bundle: Bundle, placed: Placement | None = None) -> str:
    """Give everything a bundle says about itself, its digest, and how long a row takes where that was measured."""
    told: dict[str, Any] = {"digest": bundle.digest, **msgspec.to_builtins(bundle.manifest)}
    if placed is not None:
        cost = placed.cost
        told["measured"] = {
            "place": placed.place,
            "one_row_ms": cost.of(1) / 1e6,
            "another_row_ms": cost.row_ns / 1e6,
        }
    return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()


def as_text(bundle: Bundle, placed: Placement | None = None) -> str:
    """Give the same for a person."""
    from rich.console import Console
    from rich.table import Table

    manifest = bundle.manifest
    table = Table("feature", "type", "null", "known values", box=None, pad_edge=False, header_style="bold")
    for feature in manifest.schema.features:
        kind = f"{feature.type} ({feature.unit})" if feature.unit else feature.type
        known = _known(feature, manifest.schema.is_closed(feature))
        table.add_row(feature.name, kind, "yes" if feature.nullable else "no", known)
    facts = Table(box=None, show_header=False, pad_edge=False)
    versions = ", ".join(f"{name} {version}" for name, version in manifest.origin.versions.items())
    for name, text in [
        ("model", f"{manifest.name} {manifest.version}"),
        ("engine", _engine(manifest)),
        ("measured", "no" if placed is None else str(placed)),
        ("answers", ", ".join(_output(output) for output in manifest.outputs)),
        ("classes", ", ".join(map(str, manifest.classes or ())) or "none"),
        ("origin", f"{manifest.origin.source}, {manifest.origin.format}, {manifest.origin.model}"),
        ("made with", versions or "unknown"),
        ("built by", f"fairlead {manifest.fairlead_version}"),
        ("code", manifest.code or "none"),
        ("digest", bundle.digest),
    ]:
        facts.add_row(name, text)
    sink = io.StringIO()
    console = Console(file=sink, width=120, highlight=False, markup=False, emoji=False)
    console.print(facts)
    console.print()
    console.print(table)
    return "\n".join(line.rstrip() for line in sink.getvalue().rstrip().splitlines())


def scored(report: Report, as_json: bool = False) -> str:
    """Tell what became of a run of `fairlead score`."""
    if as_json:
        totals = {"rows_in": report.rows_in, "rows_out": report.rows_out, "rejects": report.rejects}
        told = msgspec.to_builtins(report) | totals
        return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()
    lines = [_file(file) for file in report.files[:_MOST_FILES]]
    if len(report.files) > _MOST_FILES:
        lines.append(f"… and {len(report.files) - _MOST_FILES:,} files more")
    fresh = sum(file.rows_in for file in report.files if not file.skipped)
    rate = f"; {fresh / report.duration_s:,.0f} rows/s over {report.duration_s:.1f} s" if fresh else ""
    lines.append(
        f"{report.rows_in:,} rows in = {report.rows_out:,} rows out + {report.rejects:,} rejects, "
        f"with {report.name} {report.version}{rate}"
    )
    return "\n".join(lines)


def streamed(status: Status) -> str:
    """Tell in a line how a consumer is."""
    parts = [
        f"{status.model} {status.version}".strip(),
        f"{status.records:,} events",
        f"{status.records_per_s:,.0f}/s",
        f"{status.dead_letters:,} dead letters",
    ]
    waiting = [one.records for one in status.lag if one.records is not None]
    ages = [one.age_s for one in status.lag if one.age_s is not None]
    parts += [f"{sum(waiting):,} waiting"] if waiting else []
    parts += [f"{max(ages):,.1f} s behind"] if ages else []
    parts += [f"not ready: {status.reason}"] if status.reason else []
    return " · ".join(parts)


def weighed(measured: Sequence[Measured], as_json: bool = False) -> str:
    """Tell where the bytes of dashboards are, a column a dashboard."""
    if as_json:
        told = [
            {
                "name": one.name,
                "settings": dict(one.settings),
                "parts_bytes": dict(one.parts),
                "total_bytes": one.total,
                "loaded_bytes": one.held.loaded_bytes,
                "worker_bytes": one.held.worker_bytes,
            }
            for one in measured
        ]
        return msgspec.json.format(msgspec.json.encode(told), indent=2).decode()
    parts = list(dict.fromkeys(part for one in measured for part in one.parts))
    settings = list(dict.fromkeys(name for one in measured for name in one.settings))
    rows = [["", *(one.name for one in measured)]]
    rows += [[name, *(str(one.settings.get(name, "")) for one in measured)] for name in settings]
    rows += [[part, *(size_text(one.parts.get(part, 0)) for one in measured)] for part in parts]
    rows.append(["the whole store", *(size_text(one.total) for one in measured)])
    rows.append(["in memory, once", *(size_text(one.held.loaded_bytes) for one in measured)])
    rows.append(["and in each worker", *(size_text(one.held.worker_bytes) for one in measured)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    )


def _file(file: FileReport) -> str:
    done = "done before" if file.skipped else f"{file.duration_s:.1f} s"
    rejects = f", {file.rejects:,} rejects in {file.rejects_file}" if file.rejects else ""
    return f"{file.output}: {file.rows_out:,} rows of {file.input}{rejects} ({done})"


def _engine(manifest: Manifest) -> str:
    if manifest.parity is None:
        return f"native: {manifest.engine_reason}"
    parity = manifest.parity
    form = "trees and ONNX" if TREES in manifest.files else "ONNX"
    if manifest.trees_reason is not None:
        form += f" alone ({manifest.trees_reason})"
    return (
        f"compiled to {form}; {parity.rows:,} rows agree with the original, "
        f"largest difference {parity.largest_difference:.2g} (allowed {parity.tolerance:g})"
    )


def _output(output: Output) -> str:
    source = output.source if output.label is None else f"{output.source}:{output.label}"
    compared = f" {output.comparison} {output.threshold:g}" if output.threshold is not None else ""
    return output.name if source == output.name and not compared else f"{output.name} = {source}{compared}"


def _known(feature: Feature, closed: bool) -> str:
    if feature.categories is not None:
        shown = ", ".join(map(str, feature.categories[:_MOST_CATEGORIES]))
        more = f", … ({len(feature.categories)})" if len(feature.categories) > _MOST_CATEGORIES else ""
        return f"{shown}{more}{'; closed' if closed else ''}"
    if feature.minimum is not None and feature.maximum is not None:
        return f"{feature.minimum:g} to {feature.maximum:g}"
    return ""
