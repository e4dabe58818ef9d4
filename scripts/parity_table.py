#!/usr/bin/env python
"""Fill the tables of docs/compile.md: every step compiled, compared with the original, and timed.

python scripts/parity_table.py [--only TEXT] [--page FILE]

It calls what `fairlead build` calls: schema, compiler, probes, comparison, engines. The data is made up and
seeded; the times are of this machine.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier, LGBMRegressor
from rich.console import Console
from rich.progress import track
from sklearn import ensemble, linear_model, naive_bayes, neighbors, neural_network, svm, tree
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import DictVectorizer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    RobustScaler,
    StandardScaler,
)
from threadpoolctl import threadpool_limits
from xgboost import XGBClassifier, XGBRegressor

from fairlead.bundle import samples, signature
from fairlead.bundle.compile import steps
from fairlead.bundle.compile.model import compile_model
from fairlead.bundle.formats import LoadedModel
from fairlead.bundle.originals import Original, original_of
from fairlead.bundle.parity import Disagreement, compare
from fairlead.bundle.probes import probes
from fairlead.errors import NotCompilable
from fairlead.predict.engines import Engine, OnnxEngine
from fairlead.predict.native import NativeEngine
from fairlead.predict.trees import TreesEngine, kernel
from fairlead.predict.validate import Validator

PAGE = Path(__file__).parent.parent / "docs" / "compile.md"
TRAIN_ROWS, SAMPLE_ROWS, MANY_ROWS = 2_000, 5_000, 10_000
NUMBERS = ["age", "income", "distance", "visits"]
CATEGORIES = ["plan", "city"]
SEED = 7


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Parameters
    ----------
    step : the class, as the table names it.
    setting : what stands around it.
    model : not fitted; ends in something that predicts.
    columns : of `data` that it takes.
    nulls : the share of values that are missing.
    grid : round the numbers, so that rows coincide.
    records : hand it dicts, as a DictVectorizer wants.
    """

    step: str
    setting: str
    model: Any
    columns: list[str] = field(default_factory=lambda: list(NUMBERS))
    nulls: float = 0.0
    grid: bool = False
    records: bool = False


@dataclass(frozen=True)
class Timing:
    """Median seconds of the original and of fairlead for the same records."""

    original_s: float
    fairlead_s: float


@dataclass(frozen=True)
class Result:
    """What came of a case; `reason` is None for a compiled one."""

    case: Case
    reason: str | None
    rows: int
    difference: float
    one: Timing
    many: Timing


def data(n_rows: int, nulls: float = 0.0, grid: bool = False) -> pd.DataFrame:
    """Make customers: continuous and whole numbers, categories few and many, and three kinds of target."""
    rng = np.random.default_rng(SEED)
    frame = pd.DataFrame(
        {
            "age": rng.normal(45, 15, n_rows),
            "income": rng.gamma(2, 20_000, n_rows),
            "distance": rng.uniform(0, 1, n_rows),
            "visits": rng.normal(30, 12, n_rows) if not grid else rng.integers(0, 60, n_rows),
            "plan": rng.choice(["basic", "plus", "pro", "team"], n_rows),
            "city": rng.choice([f"city {i}" for i in range(30)], n_rows),
        }
    )
    if grid:
        frame[NUMBERS] = frame[NUMBERS].div([10, 20_000, 0.2, 10]).round()
    score = frame["age"] / 45 + frame["income"] / 40_000 - 2 * frame["distance"] + (frame["plan"] == "pro")
    score += frame["city"].str.len() / 7 + rng.normal(0, 0.5, n_rows)
    for name in (*NUMBERS, *CATEGORIES):
        frame.loc[rng.random(n_rows) < nulls, name] = np.nan
    return frame.assign(
        number=score,
        two=(score > score.median()).astype(int),
        three=pd.qcut(score, 3, labels=False).astype(int),
    )


def one_hot() -> Any:
    """Make the encoder that the pipelines use."""
    return OneHotEncoder(handle_unknown="ignore", sparse_output=False)


def prepared() -> ColumnTransformer:
    """Make the preprocessing that stands before an estimator in a Pipeline."""
    numbers = make_pipeline(SimpleImputer(), StandardScaler())
    return ColumnTransformer([("category", one_hot(), CATEGORIES), ("number", numbers, NUMBERS)])


def cases() -> list[Case]:
    """List every row of the table."""
    return [*transformer_cases(), *estimator_cases(), *native_cases()]


def transformer_cases() -> Iterator[Case]:
    """Yield each transformer before a classifier, then as a part of more before a regressor."""
    discretizer = {"strategy": "quantile", "quantile_method": "averaged_inverted_cdf"}
    numeric: list[tuple[Callable[[], Any], float]] = [
        (StandardScaler, 0),
        (MinMaxScaler, 0),
        (RobustScaler, 0),
        (lambda: SimpleImputer(strategy="median", add_indicator=True), 0.1),
        (lambda: KBinsDiscretizer(8, **discretizer), 0),
        (lambda: make_pipeline(StandardScaler(), PolynomialFeatures(2)), 0),
    ]
    ordinal = {"handle_unknown": "use_encoded_value", "unknown_value": -1, "encoded_missing_value": -2}
    categorical: list[Callable[[], Any]] = [one_hot, lambda: OrdinalEncoder(**ordinal)]
    for make, nulls in numeric:
        name = type(make()).__name__.replace("Pipeline", "PolynomialFeatures")
        yield Case(name, "before LogisticRegression", make_pipeline(make(), logistic()), NUMBERS, nulls)
        more = ColumnTransformer([("it", make(), NUMBERS), ("category", one_hot(), CATEGORIES)])
        columns = [*NUMBERS, *CATEGORIES]
        yield Case(name, "in a Pipeline, Ridge", make_pipeline(more, linear_model.Ridge()), columns, nulls)
    for make in categorical:
        name = type(make()).__name__
        yield Case(name, "before LogisticRegression", make_pipeline(make(), logistic()), CATEGORIES, 0.1)
        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        more = ColumnTransformer([("it", make(), CATEGORIES), ("number", numbers, NUMBERS)])
        columns = [*CATEGORIES, *NUMBERS]
        yield Case(name, "in a Pipeline, Ridge", make_pipeline(more, linear_model.Ridge()), columns, 0.1)
    columns = [*NUMBERS, *CATEGORIES]
    vectorizer = make_pipeline(DictVectorizer(), logistic())
    yield Case("DictVectorizer", "before LogisticRegression", vectorizer, columns, records=True)
    scaled = make_pipeline(DictVectorizer(), StandardScaler(with_mean=False), linear_model.Ridge())
    yield Case("DictVectorizer", "in a Pipeline, Ridge", scaled, columns, records=True)
    union = [("scaled", StandardScaler()), ("binned", KBinsDiscretizer(5, **discretizer))]
    yield Case("FeatureUnion", "before LogisticRegression", make_pipeline(FeatureUnion(union), logistic()))
    imputed = make_pipeline(SimpleImputer(), FeatureUnion(union), linear_model.Ridge())
    yield Case("FeatureUnion", "in a Pipeline, Ridge", imputed, NUMBERS, 0.1)
    yield Case("ColumnTransformer", "before LogisticRegression", make_pipeline(prepared(), logistic()), columns, 0.1)
    normed = make_pipeline(prepared(), MinMaxScaler(), linear_model.Ridge())
    yield Case("ColumnTransformer", "in a Pipeline, Ridge", normed, columns, 0.1)


def logistic() -> Any:
    """Make the classifier that follows a transformer."""
    return linear_model.LogisticRegression(max_iter=300)


def estimator_cases() -> Iterator[Case]:
    """Yield each estimator over numbers alone, two classes; then in a Pipeline, three classes."""
    takes_null = ("DecisionTree", "RandomForest", "ExtraTrees", "HistGradientBoosting", "XGB", "LGBM")
    for make in estimators():
        name = type(make()).__name__
        nulls = 0.1 if name.startswith(takes_null) else 0.0
        needs_scale = name.startswith(("SGD", "MLP", "LinearSV"))
        alone = make_pipeline(StandardScaler(), make()) if needs_scale else make()
        yield Case(name, "after StandardScaler" if needs_scale else "alone", alone, NUMBERS, nulls)
        pipeline = Pipeline([("columns", prepared()), ("model", make())])
        yield Case(name, "in a Pipeline", pipeline, [*NUMBERS, *CATEGORIES], 0.1)


def estimators() -> list[Callable[[], Any]]:
    """List the estimators, each single-threaded and seeded."""
    both: list[tuple[Any, Any, dict[str, Any]]] = [
        (linear_model.SGDClassifier, linear_model.SGDRegressor, {}),
        (svm.LinearSVC, svm.LinearSVR, {"max_iter": 5_000}),
        (tree.DecisionTreeClassifier, tree.DecisionTreeRegressor, {}),
        (ensemble.RandomForestClassifier, ensemble.RandomForestRegressor, {"n_estimators": 100}),
        (ensemble.ExtraTreesClassifier, ensemble.ExtraTreesRegressor, {"n_estimators": 100}),
        (ensemble.GradientBoostingClassifier, ensemble.GradientBoostingRegressor, {}),
        (ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor, {}),
        (neural_network.MLPClassifier, neural_network.MLPRegressor, {"max_iter": 60}),
        (XGBClassifier, XGBRegressor, {"n_jobs": 1}),
        (LGBMClassifier, LGBMRegressor, {"n_jobs": 1, "verbose": -1}),
    ]
    linear = [logistic, linear_model.LinearRegression, linear_model.Ridge, linear_model.Lasso, linear_model.ElasticNet]
    single = [naive_bayes.GaussianNB, neighbors.KNeighborsClassifier, neighbors.KNeighborsRegressor]
    seeded = [_maker(cls, options) for *pair, options in both for cls in pair]
    return [*linear, *seeded, *single]


def _maker(cls: Any, options: dict[str, Any]) -> Callable[[], Any]:
    return lambda: cls(**options, random_state=0)


def native_cases() -> Iterator[Case]:
    """Yield models that stay as they are, to show what that costs."""
    yield Case("KNeighborsClassifier", "on a grid", neighbors.KNeighborsClassifier(), grid=True)
    yield Case("SVC", "alone", svm.SVC(random_state=0))


def result_of(case: Case) -> Result:
    """Train, compile, compare and time one case, as `fairlead build` does.

    Raises
    ------
    RuntimeError
        When it compiles and too few rows were compared to say anything.
    """
    frame = data(MANY_ROWS, case.nulls, case.grid)
    model = case.model
    target = "number" if not is_classifier(model) else "three" if "in a" in case.setting else "two"
    known = frame[case.columns].head(TRAIN_ROWS)
    model.fit(known.to_dict(orient="records") if case.records else known, frame[target].head(TRAIN_ROWS))

    sample = frame[case.columns].head(SAMPLE_ROWS)
    loaded = LoadedModel(model, "pickle", {})
    original = original_of(loaded)
    schema = signature.schema_of(loaded, original, sample, None)
    validator = Validator(schema)
    records = samples.records_of(frame[case.columns])
    rows = validator.check(records[:SAMPLE_ROWS]).rows
    native = NativeEngine(model, original.kind, schema, original.form, original.has_probabilities)
    engine: Engine = native
    reason, compared, difference = None, 0, 0.0
    try:
        compiled = compile_model(model, schema)
        engine = OnnxEngine(compiled.graph, schema, compiled.classes)
        proof = compare(native, engine, rows, probes(schema, rows, compiled.thresholds))
        if isinstance(proof, Disagreement):
            raise NotCompilable("parity", str(proof))
        compared, difference = proof.rows, proof.largest_difference
        if compiled.forest is not None and kernel() is not None:
            engine = TreesEngine(compiled.forest, schema, compiled.classes)
            proof = compare(native, engine, rows, probes(schema, rows, compiled.thresholds))
            if isinstance(proof, Disagreement):
                raise RuntimeError(f"{case.step}: the trees engine: {proof}")
            difference = proof.largest_difference
        if compared < SAMPLE_ROWS:
            raise RuntimeError(f"{case.step}: only {compared} rows compared")
    except NotCompilable as error:
        engine, reason = native, str(error)

    def fairlead(some: list[dict[str, Any]]) -> object:
        return engine.predict(validator.check(some).rows)

    script = as_a_script(original)
    whole = next(record for record in records if None not in record.values())
    one = Timing(*(median_s(call, [whole], 0.3, 15) for call in (script, fairlead)))
    many = Timing(*(median_s(call, records, 0.0, 3) for call in (script, fairlead)))
    return Result(case, reason, compared, difference, one, many)


def as_a_script(original: Original) -> Callable[[list[dict[str, Any]]], object]:
    """Give what a script behind a web framework does with the records of a request."""
    model = original.model
    predict = model.predict_proba if original.has_probabilities else model.predict
    if original.form == "records":
        return predict
    return lambda records: predict(pd.DataFrame(records))


def median_s(call: Callable[[Any], object], argument: Any, least_s: float, least_calls: int) -> float:
    """Give the median time of a call, after one that does not count."""
    call(argument)
    found: list[float] = []
    end = time.perf_counter() + least_s
    while len(found) < least_calls or time.perf_counter() < end:
        start = time.perf_counter()
        call(argument)
        found.append(time.perf_counter() - start)
    return statistics.median(found)


def table(results: list[Result]) -> str:
    """Write the table in Markdown."""
    libraries = ("scikit-learn", "onnxruntime", "numpy", "pandas", "xgboost-cpu", "lightgbm")
    made = f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores {platform.machine()}, one used, Python "
    lines = [made + platform.python_version() + "".join(f", {name} {version(name)}" for name in libraries) + ".", ""]
    lines += [
        "| step | | engine | rows compared | largest difference "
        "| 1 row: original µs | fairlead µs | times as fast | 10,000 rows: original ms | fairlead ms | times as fast |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    return "\n".join([*lines, *map(_line, results)])


def _line(result: Result) -> str:
    engine = "compiled" if result.reason is None else f"native: {shortened(result.reason)}"
    proved = [f"{result.rows:,}", f"{result.difference:.1g}"] if result.reason is None else ["", ""]
    cells = [result.case.step, result.case.setting, engine, *proved]
    for timing, unit in ((result.one, 1e6), (result.many, 1e3)):
        ratio = timing.original_s / timing.fairlead_s
        cells += [_number(timing.original_s * unit), _number(timing.fairlead_s * unit), _number(ratio)]
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def shortened(reason: str) -> str:
    """Leave out the row that a disagreement names; bars would end the cell."""
    return re.sub(r", the first is .*", "", reason).replace("|", "\\|")


def known_steps() -> str:
    """List every class that has a compiled form, by library."""
    lines = []
    transforms, predictors = (list(table) for table in steps.tables())
    for title, names in (("Transformers", transforms), ("Predictors", predictors)):
        libraries = sorted({name.split(".")[0] for name in names} - {"fairlead"})  # OnnxModel: a graph as it is
        for library in libraries:
            found = sorted(name.split(".", 1)[1] for name in names if name.startswith(f"{library}."))
            lines.append(f"- **{title}, {library}**: {', '.join(f'`{name}`' for name in found)}.")
    return "\n".join(lines)


def replaced(page: str, name: str, text: str) -> str:
    r"""Put `text` between the two markers of `name` in a page.

    >>> replaced("a <!-- x --> old <!-- /x --> b", "x", "new")
    'a <!-- x -->\n\nnew\n\n<!-- /x --> b'
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, mark, rest = page.partition(begin)
    _, end_mark, after = rest.partition(end)
    if not (mark and end_mark):
        raise SystemExit(f"expected the markers {begin} and {end} in the page")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def main() -> None:
    """Measure every case and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="the steps whose name holds TEXT; print, write not")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of convergence: how good the models are does not matter here
    chosen = [case for case in cases() if options.only.lower() in case.step.lower()]
    console = Console(stderr=True)
    with threadpool_limits(1):
        results = [result_of(case) for case in track(chosen, "comparing", console=console)]
    for result in results:
        where = f"{result.case.step}, {result.case.setting}"
        if result.reason is not None:
            sys.stderr.write(f"native: {where}: {result.reason}\n")
        for what, timing in (("1 row", result.one), ("10,000 rows", result.many)):
            if timing.fairlead_s > timing.original_s:
                sys.stderr.write(f"slower: {where}: {what}, {timing.fairlead_s / timing.original_s:.1f} times\n")
    if options.only:
        print(table(results))
        return
    page = options.page.read_text(encoding="utf-8")
    page = replaced(replaced(page, "table", table(results)), "steps", known_steps())
    options.page.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
