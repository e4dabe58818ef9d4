from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from msgspec.structs import replace
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

import fairlead.web
from fairlead.bundle.build import BuildOptions, build
from fairlead.bundle.pyfunc import _load_pyfunc
from fairlead.errors import BundleError, InvalidRecords, ModelFailed
from fairlead.predict.predictor import Predictor, load
from fairlead.schema import Feature, Schema

GOOD = {"size": 80.0, "rooms": 3, "town": "Delft"}


async def ask(path: Path, content: bytes) -> Any:
    transport = httpx.ASGITransport(fairlead.web.asgi(path))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        response = await client.post("/predict", content=content)
        assert response.status_code == 200, response.text
        return response.json()


def asked_over_http(path: Path, records: list[Any]) -> Any:
    import asyncio

    return asyncio.run(ask(path, json.dumps(records).encode()))


def asked_on_the_command_line(path: Path, records: list[Any]) -> Any:
    command = [sys.executable, "-m", "fairlead", "predict", str(path), "-"]
    done = subprocess.run(command, input=json.dumps(records).encode(), capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def every_way(path: Path, records: list[Any]) -> dict[str, list[Any]]:
    predictor = load(path)
    frame = pd.DataFrame(records)
    return {
        "records": predictor.run(records).predictions,
        "one by one": [predictor.predict(record) for record in records],
        "beside a bad one": predictor.run([*records, None]).predictions[:-1],
        "table": predictor.run(pa.Table.from_pandas(frame)).predictions,
        "frame": predictor.predict(frame).to_dict("records"),
        "pyfunc": _load_pyfunc(str(path)).predict(frame).to_dict("records"),
        "pyfunc of records": _load_pyfunc(str(path)).predict(records, params={"a": 1}),
        "command": asked_on_the_command_line(path, records),
        "web": asked_over_http(path, records),
    }


def assert_same(found: dict[str, list[Any]]) -> None:
    wanted = found["records"]
    assert len(wanted) > 0
    for way, answers in found.items():
        assert len(answers) == len(wanted), way
        for answer, other in zip(answers, wanted, strict=True):
            assert list(answer) == list(other), way
            for name, value in other.items():
                by_class = isinstance(value, dict) and all(isinstance(one, float) for one in value.values())
                if by_class or isinstance(value, float):
                    assert answer[name] == pytest.approx(value, rel=1e-12, abs=1e-12), way
                else:
                    assert json.loads(json.dumps(answer[name])) == json.loads(json.dumps(value)), way
                    assert type(answer[name]) is type(value), way


@pytest.mark.parametrize("bundle", ["compiled_bundle", "native_bundle"])
def test_every_way_gives_the_same_numbers(bundle: str, homes: pd.DataFrame, request: pytest.FixtureRequest) -> None:
    records = homes.head(12).to_dict("records")
    records += [{**records[0], "size": None}, {**records[1], "town": "Nowhere"}, {**records[2], "size": 1e308}]
    assert_same(every_way(request.getfixturevalue(bundle), records))


@pytest.mark.parametrize("bundle", ["prepared_bundle", "frame_prepared_bundle"])
def test_so_they_do_where_the_user_prepares(bundle: str, request: pytest.FixtureRequest) -> None:
    records = [{"area": float(area), "rooms": area % 5} for area in range(20, 40)]
    assert_same(every_way(request.getfixturevalue(bundle), records))


def test_so_does_the_users_own_class(function_bundle: Path) -> None:
    records = [{"size": size, "rooms": 3, "town": "Gouda", "how": "well"} for size in (80.0, 120.5)]
    found = every_way(function_bundle, records)
    assert_same(found)
    answer = found["records"][1]["prediction"]
    assert answer["large"] is True
    assert json.loads(json.dumps(answer)) == {
        "score": 241.0,
        "rooms": 3,
        "large": True,
        "scores": [[120.5, 1.0]],
        "nested": [{"town": "Gouda"}, [0.5, None]],
    }


def test_the_telco_file_gives_the_same_in_every_way(telco_csv: Path, make_bundle: Any) -> None:
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    frame = pd.read_csv(telco_csv).head(600).drop(columns=["customerID", "TotalCharges"])
    features = frame.drop(columns="Churn")
    texts = [name for name in features if features[name].dtype.kind not in "iuf"]
    encoder = ColumnTransformer([("texts", OneHotEncoder(handle_unknown="ignore"), texts)], remainder="passthrough")
    model = make_pipeline(encoder, RandomForestClassifier(10, random_state=1, max_depth=8)).fit(
        features, frame["Churn"]
    )
    path = make_bundle(model, "telco", data=frame, target="Churn", outputs=["p=probability:Yes"], engine="onnx")
    found = every_way(path, features.tail(200).to_dict("records"))
    assert_same(found)
    wanted = model.predict_proba(features.tail(200))[:, 1]
    assert [answer["p"] for answer in found["records"]] == pytest.approx(wanted.tolist(), abs=1e-6)


def test_an_outcome_says_who_answered(predictor: Predictor) -> None:
    outcome = predictor.run([GOOD])
    assert (outcome.name, outcome.version) == ("homes", predictor.version)
    assert len(outcome.digest) == 64
    assert outcome.duration_ns > 0


def test_one_bad_record_spoils_no_other(predictor: Predictor) -> None:
    (good,) = predictor.run([GOOD]).predictions
    outcome = predictor.run([GOOD, {**GOOD, "rooms": "3"}, None, GOOD, {}])
    assert outcome.predictions == [good, None, None, good, None]
    assert {place: len(problems) for place, problems in outcome.rejections.items()} == {1: 1, 2: 1, 4: 3}
    assert (predictor.counts.rows, predictor.counts.rejected) == (3, 3)


@pytest.mark.parametrize("bundle", ["compiled_bundle", "native_bundle", "function_bundle"])
def test_nothing_in_nothing_out(bundle: str, request: pytest.FixtureRequest) -> None:
    predictor = load(request.getfixturevalue(bundle))
    for nothing in (
        [],
        (),
        pa.table(
            {"size": pa.array([], pa.float64()), "rooms": pa.array([], pa.int64()), "town": pa.array([], pa.string())}
        ),
    ):
        outcome = predictor.run(nothing)
        assert (outcome.predictions, outcome.rejections) == ([], {})
    assert predictor.run([None]).predictions == [None]


def test_ignored_keys_are_counted_in_every_form(predictor: Predictor) -> None:
    record = {**GOOD, "customerid": "a-1", "note": None}
    plain = predictor.predict([GOOD, GOOD])
    for form in ([record, record], pa.Table.from_pylist([record, record]), [record, None, record]):
        before = predictor.counts.ignored_keys
        outcome = predictor.run(form)
        assert [answer for answer in outcome.predictions if answer] == plain
        assert predictor.counts.ignored_keys == before + 4


def test_a_table_keeps_its_bad_rows_in_place(native_bundle: Path, predictor: Predictor) -> None:
    table = pa.table({"size": [80.0, 80.0, np.inf, None], "rooms": [3, None, 3, 3], "town": ["Delft"] * 4})
    records = [GOOD, {**GOOD, "rooms": None}, {**GOOD, "size": np.inf}, {**GOOD, "size": None}]
    for one in (predictor, load(native_bundle)):
        found, wanted = one.run(table), one.run(records)
        assert found.rejections == wanted.rejections
        assert [answer is None for answer in found.predictions] == [False, True, True, False]
        assert found.predictions[0] == wanted.predictions[0]


def test_a_table_of_a_function_keeps_its_bad_rows_in_place(function_bundle: Path) -> None:
    predictor = load(function_bundle)
    found = predictor.run(pa.table({"size": [1.0, None, 3.0], "rooms": [1, 2, 3]}))
    assert list(found.rejections) == [1]
    assert [answer and answer["prediction"]["rooms"] for answer in found.predictions] == [1, None, 3]


def test_a_table_without_a_column_is_refused(predictor: Predictor) -> None:
    with pytest.raises(InvalidRecords, match="rooms: expected a column of int, got none"):
        predictor.run(pa.table({"size": [1.0], "town": ["Delft"]}))


def test_defaults_and_closed_categories(predictor: Predictor, with_schema: Any) -> None:
    size, rooms, town = predictor.schema.features
    features = (size, replace(rooms, default=3), replace(town, closed=True))
    other = with_schema(Schema(features=features))
    assert other.predict({"size": 80.0, "town": "Delft"}) == predictor.predict(GOOD)
    outcome = other.run([{**GOOD, "town": "Nowhere"}])
    assert outcome.rejections[0][0].expected == "one of Delft, Gouda, Leiden"


def test_what_is_not_json_in_a_functions_answer_is_its_failure(function_bundle: Path) -> None:
    with pytest.raises(ModelFailed, match="it holds a object"):
        load(function_bundle).run([{"size": 1.0, "rooms": 1, "how": "object"}])


def test_text_is_read_by_the_schema(predictor: Predictor) -> None:
    record, problems = predictor.intake.parse_text({"size": "80.0", "rooms": "3", "town": "Delft", "utm": "x"})
    assert problems == []
    assert record == {**GOOD, "utm": "x"}
    assert [str(problem) for problem in predictor.intake.parse_text({"rooms": "nan"})[1]] == [
        "rooms: expected an integer, got text that is not one, at $.rooms"
    ]


def test_a_bundle_that_changed_is_not_loaded(compiled_bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = shutil.copytree(compiled_bundle, tmp_path / "copy")
    model = copy / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleError, match=r"model\.onnx: changed"):
        load(copy)
    with pytest.raises(BundleError, match="not a bundle"):
        load(tmp_path)


def test_a_model_that_gives_too_few_answers_is_its_failure(predictor: Predictor) -> None:
    class Few:
        unseen: dict[str, int] = {}  # noqa: RUF012  # never changed

        def predict(self, rows: Any) -> Any:
            from fairlead.predict.outputs import Prediction

            return Prediction(np.zeros(1))

        predict_table = predict

    manifest = replace(
        predictor.manifest,
        kind="regressor",
        classes=None,
        has_probabilities=False,
        schema=Schema(features=(Feature(name="x", type="int"),)),
        outputs=predictor.manifest.outputs[:1],
    )
    few = Predictor(manifest, "", Few())
    for rows in ([{"x": 1}, {"x": 2}], pa.table({"x": [1, 2]})):
        with pytest.raises(ModelFailed, match="1 predictions for 2 rows"):
            few.run(rows)


def test_what_is_no_finite_number_is_refused_and_spoils_no_neighbour(tmp_path: Path) -> None:
    frame = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]})
    model = make_pipeline(FunctionTransformer(np.exp), LinearRegression()).fit(frame, [1.0, 2.0, 3.0, 4.0])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(model))
    build(tmp_path / "model.pkl", tmp_path / "bundle", BuildOptions(data=frame))
    outcome = load(tmp_path / "bundle").run([{"x": 1.0}, {"x": 1000.0}])
    assert outcome.predictions[0] is not None
    assert outcome.predictions[1] is None
    assert [problem.path for problem in outcome.rejections[1]] == ["$[1]"]
