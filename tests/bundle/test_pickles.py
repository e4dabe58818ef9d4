from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import pickle
import subprocess
import sys
import zlib
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import cloudpickle
import joblib
import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.compose import ColumnTransformer
from sklearn.datasets import make_classification
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from fairlead.bundle.allowlist import is_allowed
from fairlead.bundle.pickles import check_pickle, inspect_pickle, load_pickle
from fairlead.errors import SourceError, UnsafePickle, VersionSkew

NOTHING: frozenset[str] = frozenset()
X, Y = make_classification(60, 4, random_state=0)


class Attack:
    """Pickles to a call of `function(*args)`."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def refused(data: bytes, *names: str, trust: frozenset[str] = NOTHING) -> str:
    with pytest.raises(UnsafePickle) as caught:
        load_pickle(data, trust, "model.bin")
    for name in names:
        assert f"--trust {name}" in str(caught.value)
    return str(caught.value)


def joblib_bytes(model: Any, compress: Any = 0) -> bytes:
    file = io.BytesIO()
    joblib.dump(model, file, compress=compress)
    return file.getvalue()


def pipeline() -> Any:
    frame = pd.DataFrame({"a": X[:, 0], "b": ["x", "y"] * 30})
    columns = ColumnTransformer([("n", StandardScaler(), ["a"]), ("c", OneHotEncoder(), ["b"])])
    return make_pipeline(columns, RandomForestClassifier(3, random_state=0)).fit(frame, Y)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_model_loads_from_every_protocol(protocol: int) -> None:
    model = LogisticRegression().fit(X, Y)
    loaded, versions, warnings = load_pickle(pickle.dumps(model, protocol), NOTHING, "model.bin")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))
    assert versions == {"scikit-learn": sklearn.__version__}
    assert warnings == ()


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 1), ("lzma", 1)])
def test_joblib_files_load_with_any_compression(compress: Any) -> None:
    model = pipeline()
    loaded, versions, _ = load_pickle(joblib_bytes(model, compress), NOTHING, "model.joblib")
    frame = pd.DataFrame({"a": X[:, 0], "b": ["x", "y"] * 30})
    np.testing.assert_array_equal(loaded.predict_proba(frame), model.predict_proba(frame))
    assert versions == {"scikit-learn": sklearn.__version__}


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress, zlib.compress])
def test_compressed_plain_pickles_load(compress: Any) -> None:
    loaded, _, _ = load_pickle(compress(pickle.dumps({"a": 1})), NOTHING, "model.pkl")
    assert loaded == {"a": 1}


def test_joblib_arrays_of_every_kind_come_back_as_they_were() -> None:
    arrays = {
        "floats": np.arange(12.0).reshape(3, 4),
        "fortran": np.asfortranarray(np.arange(12.0).reshape(3, 4)),
        "strings": np.array(["ab", "c"]),
        "bytes": np.array([b"ab", b"c"]),
        "objects": np.array(["ab", None, 3], dtype=object),
        "nested": np.array([np.arange(3), "x"], dtype=object),
        "structured": np.array([(1, 2.0)], dtype=[("i", "<i8"), ("f", "<f4")]),
        "with objects": np.array([(1, "a")], dtype=[("i", "<i8"), ("o", object)]),
        "dates": np.array(["2026-11-21"], dtype="datetime64[D]"),
        "bools": np.array([True, False]),
        "empty": np.empty((0, 3)),
        "scalar": np.array(3.5),
        "big endian": np.arange(3, dtype=">i4"),
        "complex": np.array([1 + 2j]),
        "subarray": np.zeros(2, dtype=[("v", "<f8", (3,))]),
    }
    loaded, _, _ = load_pickle(joblib_bytes(arrays), NOTHING, "arrays.joblib")
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
        assert loaded[name].shape == array.shape, name
        assert repr(loaded[name].tolist()) == repr(array.tolist()), name
        assert loaded[name].dtype == array.dtype.newbyteorder("="), name
    loaded["floats"][0, 0] = 9  # arrays can be written to, as joblib's own


@pytest.mark.parametrize(
    "model",
    [
        (DictVectorizer().fit([{"a": "x", "b": 1}]), LogisticRegression().fit(X, Y)),
        make_pipeline(FunctionTransformer(np.log1p), StandardScaler()).fit(np.abs(X)),
        GridSearchCV(LogisticRegression(), {"C": [1, 2]}, cv=2, scoring="f1").fit(X, Y),
        KNeighborsClassifier(algorithm="kd_tree", metric="euclidean").fit(X, Y),
        pd.DataFrame({"a": [1.0], "b": ["x"], "c": pd.Categorical(["u"]), "d": [pd.Timestamp("2026-11-21")]}),
        np.random.default_rng(0),
        [OrderedDict(a=1), {1}, frozenset([2]), 1j, bytearray(b"x"), slice(1), np.float64(3), np.dtype("f4")],
    ],
    ids=lambda model: type(model).__name__,
)
def test_harmless_objects_pass(model: Any) -> None:
    for data in (pickle.dumps(model), pickle.dumps(model, 2), joblib_bytes(model)):
        loaded, _, warnings = load_pickle(data, NOTHING, "model.bin")
        assert type(loaded) is type(model)
        assert warnings == ()


@pytest.mark.parametrize(
    ("function", "name"),
    [(os.system, "posix.system"), (eval, "builtins.eval"), (getattr, "builtins.getattr"), (exec, "builtins.exec")],
    ids=str,
)
@pytest.mark.parametrize("protocol", range(6))
def test_an_attack_is_refused_and_nothing_runs(tmp_path: Path, function: Any, name: str, protocol: int) -> None:
    marker = tmp_path / "marker"
    arguments: dict[Any, tuple[Any, ...]] = {
        os.system: (f"touch {marker}",),
        getattr: (marker, "touch"),
    }
    args = arguments.get(function, (f"__import__('pathlib').Path({str(marker)!r}).touch()",))
    data = pickle.dumps([1, Attack(function, *args)], protocol)
    assert pickle.loads(data)  # the attack is real …
    if function is not getattr:  # that one only reaches for a method
        marker.unlink()
    refused(data, name)
    refused(gzip.compress(data), name)
    assert not marker.exists()  # … and did not run


@pytest.mark.parametrize("compress", [0, 3])
def test_an_attack_inside_a_joblib_object_array_is_refused(tmp_path: Path, compress: int) -> None:
    marker = tmp_path / "marker"
    attack = np.array([Attack(os.system, f"touch {marker}"), None], dtype=object)
    refused(joblib_bytes({"model": LogisticRegression().fit(X, Y), "classes": attack}, compress), "posix.system")
    assert not marker.exists()


def test_a_dotted_name_that_walks_attributes_is_refused(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    for module, name in [
        ("joblib", "os.system"),
        ("sklearn", "os.system"),
        ("sklearn.base", "BaseEstimator.get_params"),
    ]:
        data = b"\x80\x04" + b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name)) + b"\x93"
        text = f"touch {marker}"
        data += b"\x8c" + bytes([len(text)]) + text.encode() + b"\x85R."
        refused(data, f"{module}.{name}")
    assert not marker.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("sklearn.utils.fixes", "Path"),
        ("sklearn.datasets._base", "load_files"),
        ("sklearn.tests.test_base", "MyEstimator"),
        ("numpy", "load"),
        ("numpy", "memmap"),
        ("numpy", "fromfile"),
        ("numpy.testing._private.utils", "runstring"),
        ("pandas", "read_pickle"),
        ("pandas", "eval"),
        ("pandas.io.pickle", "read_pickle"),
        ("scipy.stats._continuous_distns", "norm_gen"),
        ("xgboost.core", "DMatrix"),
        ("operator", "methodcaller"),
        ("builtins", "__import__"),
        ("builtins", "type"),
        ("os", "system"),
        ("subprocess", "Popen"),
    ],
)
def test_a_dangerous_name_inside_a_known_library_is_refused(module: str, name: str) -> None:
    refused(f"c{module}\n{name}\n.".encode(), f"{module}.{name}")


@pytest.mark.parametrize("name", ["Integral", "Interval", "Parallel"])
def test_a_class_that_a_library_only_imported_is_refused(name: str) -> None:
    homes = [
        key
        for key, module in list(sys.modules.items())
        if key.startswith("sklearn.") and name in vars(module) and is_allowed(key, name)
    ]
    homes = [key for key in homes if not vars(sys.modules[key])[name].__module__.startswith("sklearn._loss")]
    if name == "Interval":  # scikit-learn's parameter validation; its own, but not a part of a model
        homes = [key for key in homes if vars(sys.modules[key])[name].__module__ == "sklearn.utils._param_validation"]
    assert homes
    for home in homes:
        assert "another library" in refused(f"c{home}\n{name}\n.".encode(), f"{home}.{name}")


def test_a_global_whose_name_is_computed_is_refused() -> None:
    # STACK_GLOBAL on what a call returned: nobody can tell what it would be.
    data = b"\x80\x04cbuiltins\nstr\n)R\x8c\x06system\x93."
    with pytest.raises(SourceError, match="STACK_GLOBAL requires str"):
        load_pickle(data, NOTHING, "model.bin")


def test_calling_what_an_allowed_global_returned_is_refused() -> None:
    # functools.partial(print)("x"), without print: the call is what counts.
    data = b"\x80\x02cfunctools\npartial\ncbuiltins\nlist\n\x85R)R."
    assert "calls what that returns" in refused(data, "functools.partial")


def test_changing_an_allowed_class_is_refused() -> None:
    data = b"\x80\x02csklearn.base\nBaseEstimator\nN}X\x03\x00\x00\x00fitNs\x86b."
    refused(data, "sklearn.base.BaseEstimator")


@pytest.mark.parametrize(
    "data", [b"\x80\x02\x82\x01.", b"Pid\n.", b"\x80\x02K\x01Q."], ids=["ext", "persid", "binpersid"]
)
def test_extension_codes_and_persistent_ids_are_refused(data: bytes) -> None:
    with pytest.raises(SourceError, match="persistent ids or extension codes"):
        load_pickle(data, NOTHING, "model.bin")


def test_a_lambda_by_cloudpickle_is_refused_with_advice(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    model = make_pipeline(FunctionTransformer(lambda X: (marker.touch(), X)[1]), StandardScaler())
    data = cloudpickle.dumps(model)
    message = refused(data, "cloudpickle.cloudpickle._make_function")
    assert "define that in a module" in message
    assert not marker.exists()


def test_a_lambda_by_cloudpickle_loads_when_every_name_is_trusted() -> None:
    model = FunctionTransformer(lambda X: X * 2).fit(X)
    data = cloudpickle.dumps(model)
    report = inspect_pickle(data)
    trust = report.globals | report.indirect
    loaded, _, _ = load_pickle(data, trust, "model.pkl")
    np.testing.assert_array_equal(loaded.transform(X), X * 2)


def test_a_plain_model_by_cloudpickle_passes() -> None:
    loaded, _, _ = load_pickle(cloudpickle.dumps(pipeline()), NOTHING, "model.pkl")
    assert hasattr(loaded, "predict_proba")


def test_the_report_says_what_is_asked_for() -> None:
    report = inspect_pickle(pickle.dumps(Attack(os.system, "true"), 2))
    assert report.globals == {"posix.system"}
    assert report.versions == {}
    with pytest.raises(UnsafePickle):
        check_pickle(report, NOTHING)
    check_pickle(report, frozenset({"posix.system"}))


def test_trust_is_exact() -> None:
    data = pickle.dumps(Attack(os.getenv, "HOME"))
    refused(data, "os.getenv", trust=frozenset({"os", "os.get", "getenv"}))
    assert load_pickle(data, frozenset({"os.getenv"}), "model.bin")[0] == os.environ["HOME"]


def test_a_class_of_the_training_script_asks_for_trust_and_code(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(
        "import pickle\nclass Foo:\n    def predict(self, X): return [1]\n"
        "if __name__ == '__main__':\n    pickle.dump(Foo(), open('model.bin', 'wb'))\n"
    )
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True)
    data = (tmp_path / "model.bin").read_bytes()
    message = refused(data, "__main__.Foo")
    assert "--code FILE.py" in message

    module = ModuleType("train")
    exec(script.read_text(), module.__dict__)
    trust = frozenset({"__main__.Foo"})
    loaded, _, _ = load_pickle(data, trust, "model.bin", {"__main__": module})
    assert type(loaded) is module.Foo
    with pytest.raises(SourceError, match="--code"):
        load_pickle(data, trust, "model.bin")
    del module.Foo
    with pytest.raises(SourceError, match="not defined in the file given by --code"):
        load_pickle(data, trust, "model.bin", {"__main__": module})


def with_version(model: Any, *versions: str) -> bytes:
    data = pickle.dumps(model, 2)
    here = sklearn.__version__.encode()
    old = b"X" + len(here).to_bytes(4, "little") + here
    assert data.count(old) == len(versions)
    for version in versions:
        data = data.replace(old, b"X" + len(version).to_bytes(4, "little") + version.encode(), 1)
    return data


def test_a_newer_scikit_learn_is_refused() -> None:
    data = with_version(LogisticRegression().fit(X, Y), "99.1.0")
    with pytest.raises(VersionSkew, match=r"made by scikit-learn 99\.1\.0") as caught:
        load_pickle(data, NOTHING, "model.bin")
    assert sklearn.__version__ in str(caught.value)
    assert "pip install scikit-learn==99.1.0" in str(caught.value)


def test_an_older_scikit_learn_is_a_warning_and_said_once() -> None:
    data = with_version(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y), "0.24.2")
    loaded, versions, warnings = load_pickle(data, NOTHING, "model.bin")
    assert loaded.predict(X).shape == (60,)
    assert versions == {"scikit-learn": "0.24.2"}
    assert len(warnings) == 1
    assert "0.24.2" in warnings[0]


def test_parts_of_several_versions_are_told_newest_and_oldest() -> None:
    older, newer = with_version(LogisticRegression(), "1.2.0"), with_version(StandardScaler(), "1.5.0")
    # Two pickles made into one list: MARK … LIST, their STOPs and PROTOs taken away.
    joined = b"\x80\x02(" + older[2:-1] + newer[2:-1] + b"l."
    report = inspect_pickle(joined)
    assert report.versions == {"scikit-learn": "1.5.0"}
    assert report.oldest == {"scikit-learn": "1.2.0"}


def test_an_old_model_that_cannot_be_read_is_version_skew() -> None:
    data = b"\x80\x02csklearn.tree.tree\nDecisionTreeClassifier\n)\x81}"
    data += b"X\x10\x00\x00\x00_sklearn_versionX\x06\x00\x00\x000.21.3sb."
    with pytest.raises(VersionSkew, match=r"pip install scikit-learn==0\.21\.3"):
        load_pickle(data, NOTHING, "model.bin")


def test_a_tree_with_an_old_layout_is_version_skew() -> None:
    data = pickle.dumps(RandomForestClassifier(2).fit(X, Y), 2)
    here = sklearn.__version__.encode()
    data = data.replace(b"X" + len(here).to_bytes(4, "little") + here, b"X\x05\x00\x00\x001.0.2")
    data = data.replace(b"missing_go_to_left", b"gone_go_to_left___")
    with pytest.raises(VersionSkew, match=r"made by scikit-learn 1\.0\.2.*cannot read"):
        load_pickle(data, NOTHING, "model.bin")


WHOLE = pickle.dumps(LogisticRegression().fit(X, Y))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        b"<html></html>",
        b"\x00" * 100,
        b"\x80",
        b".",
        b"\x80\x04.",
        WHOLE[:-1],
        WHOLE[: len(WHOLE) // 2],
        b"\x80\x09N.",
        gzip.compress(WHOLE)[:-20],
        b"BZh9garbage",
        b"\x78\x9cgarbage",
        b"\x04\x22\x4d\x18rest",
        b"ZF0x10",
        joblib_bytes(np.arange(100.0))[:-300],
        b"K\x01K\x02R.",
        b"K\x01}b.",
        b"\x80\x02}}K\x01s.",
    ],
    ids=range(19),
)
def test_broken_files_are_told_with_their_name(data: bytes) -> None:
    with pytest.raises(SourceError, match=r"^model\.bin: "):
        load_pickle(data, NOTHING, "model.bin")


@pytest.mark.parametrize("model", [WHOLE, joblib_bytes(pipeline())], ids=["pickle", "joblib"])
def test_a_file_cut_off_anywhere_is_a_clean_error(model: bytes) -> None:
    random = np.random.default_rng(0)
    for cut in random.integers(1, len(model) - 1, 40):
        with pytest.raises(SourceError):
            load_pickle(model[:cut], NOTHING, "model.bin")


def test_an_array_with_a_senseless_shape_is_refused() -> None:
    data = joblib_bytes(np.arange(3.0)).replace(b"K\x03\x85", b"K\xff\x85")
    with pytest.raises(SourceError, match="ends inside an array"):
        load_pickle(data, NOTHING, "model.joblib")


def test_an_array_of_another_size_than_was_stepped_over_is_refused(tmp_path: Path) -> None:
    # A dtype without its digits: the bytes of the array are opcodes to whoever takes its size for zero.
    array = np.frombuffer(b"K\x010" * 4, dtype="<i4")
    joblib.dump(array, tmp_path / "array.joblib", protocol=3)
    data = (tmp_path / "array.joblib").read_bytes()
    crafted = data.replace(b"X\x02\x00\x00\x00i4", b"X\x01\x00\x00\x00i")
    assert crafted != data
    np.testing.assert_array_equal(load_pickle(data, frozenset(), "array.joblib")[0], array)
    with pytest.raises(SourceError, match=r"array\.joblib"):
        load_pickle(crafted, frozenset(), "crafted array.joblib")
