from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from fairlead import report
from fairlead.bundle.read import Bundle, open_bundle
from fairlead.schema import Feature, Output, Schema, parse_output


@pytest.fixture(scope="module")
def opened(iris_bundle: Path) -> Bundle:
    return open_bundle(iris_bundle)


def changed(opened: Bundle, *features: Feature, outputs: tuple[Output, ...] = (), **schema: str) -> Bundle:
    manifest = replace(opened.manifest, schema=Schema(features=features, **schema))
    return replace_manifest(opened, replace(manifest, outputs=outputs or manifest.outputs))


def replace_manifest(opened: Bundle, manifest: object) -> Bundle:
    return Bundle(opened.path, manifest, opened.digest)


def line_of(text: str, start: str) -> str:
    (line,) = [line for line in text.splitlines() if line.startswith(start)]
    return line


def test_a_person_is_told_everything(opened: Bundle) -> None:
    text = report.as_text(opened)
    for feature in opened.manifest.schema.features:
        assert line_of(text, feature.name)
    for label in opened.manifest.classes or ():
        assert str(label) in line_of(text, "classes")
    assert "compiled to trees and ONNX" in line_of(text, "engine")
    assert opened.digest in line_of(text, "digest")
    assert all(line == line.rstrip() for line in text.splitlines())


def test_a_program_is_told_everything(opened: Bundle) -> None:
    told = json.loads(report.as_json(opened))
    assert told["digest"] == opened.digest
    assert [feature["name"] for feature in told["schema"]["features"]] == list(opened.manifest.schema.names)
    assert told["files"] == opened.manifest.files


def test_what_looks_like_markup_is_shown_as_it_is(opened: Bundle) -> None:
    odd = changed(
        opened,
        Feature(name="[red]size[/red]", type="float", unit="[/]"),
        Feature(name="a :smile:", type="string", categories=("[bold]", "[/x]")),
    )
    text = report.as_text(odd)
    assert line_of(text, "[red]size[/red]").split() == ["[red]size[/red]", "float", "([/])", "no"]
    assert line_of(text, "a :smile:").endswith("[bold], [/x]")


def test_known_values(opened: Bundle) -> None:
    bundle = changed(
        opened,
        Feature(name="range", type="float", minimum=0, maximum=1e6),
        Feature(name="few", type="string", categories=("a", "b"), nullable=True),
        Feature(name="shut", type="string", categories=("a",), closed=True),
        Feature(name="many", type="int", categories=tuple(range(20))),
        Feature(name="nothing", type="bool"),
    )
    text = report.as_text(bundle)
    assert line_of(text, "range").split() == ["range", "float", "no", "0", "to", "1e+06"]
    assert line_of(text, "few").split() == ["few", "string", "yes", "a,", "b"]
    assert line_of(text, "shut").endswith("a; closed")
    assert line_of(text, "many").endswith("0, 1, 2, 3, 4, 5, … (20)")
    assert line_of(text, "nothing").split() == ["nothing", "bool", "no"]


def test_a_schema_that_closes_all_categories_says_so_at_each(opened: Bundle) -> None:
    bundle = changed(opened, Feature(name="town", type="string", categories=("a", "b")), categories="closed")
    assert line_of(report.as_text(bundle), "town").endswith("a, b; closed")


def test_outputs_and_engine_in_a_few_words(opened: Bundle) -> None:
    texts = ("prediction=prediction", "p=probability:setosa", "is=probability:setosa >= 0.5", "best=probability")
    manifest = replace(opened.manifest, outputs=tuple(map(parse_output, texts)))
    made = report.built(Path("out/iris"), manifest)
    assert "answers prediction, p = probability:setosa, is = probability:setosa >= 0.5, best = probability" in made
    assert made.splitlines()[-1] == "serve it with: fairlead serve out/iris"
    native = replace(manifest, engine="native", parity=None, engine_reason="scale: no compiled form")
    assert "native: scale: no compiled form" in report.built(Path("iris"), native)
