from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.preprocessing import StandardScaler

from fairlead.bundle.formats import LoadRequest, load
from fairlead.errors import SourceError, UnsafePickle

FEATURES = """
import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

class Ratio(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = 2
        return self

    def transform(self, X):
        return np.asarray(X)[:, :1] / (np.asarray(X)[:, 1:] + 1)
"""
TRAIN = """
import pickle
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
{imports}
X = np.arange(60.0).reshape(30, 2)
model = make_pipeline(Ratio(), LogisticRegression()).fit(X, [0, 1] * 15)
if __name__ == "__main__":
    with open("model.bin", "wb") as file:
        pickle.dump(model, file)
"""


def write(path: Path, model: Any) -> Path:
    path.write_bytes(pickle.dumps(model))
    return path


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("dump", [pickle.dump, joblib.dump], ids=["pickle", "joblib"])
def test_a_pair_in_either_order(
    tmp_path: Path, pair: Any, customers: Any, reopen: Any, swapped: bool, dump: Any
) -> None:
    path = tmp_path / "churn-model.bin"
    with path.open("wb") as file:
        dump(pair[::-1] if swapped else pair, file)
    loaded = load(LoadRequest(str(path)))
    assert loaded.format == "pickle"
    assert loaded.files == {"churn-model.bin": path.read_bytes()}
    assert loaded.versions == {"scikit-learn": sklearn.__version__}
    assert loaded.warnings == ()
    for again in (loaded, reopen(loaded)):
        got = again.model.predict_proba(again.vectorizer.transform(customers))
        np.testing.assert_array_equal(got, pair[1].predict_proba(pair[0].transform(customers)))


@pytest.mark.parametrize("names", [("model.bin", "dv.bin"), ("vectorizer.pkl", "vectorizer2.pkl")])
def test_vectorizer_and_model_in_two_files(tmp_path: Path, pair: Any, customers: Any, reopen: Any, names: Any) -> None:
    model, vectorizer = write(tmp_path / names[0], pair[1]), write(tmp_path / names[1], pair[0])
    loaded = load(LoadRequest(str(model), vectorizer=vectorizer))
    assert len(loaded.files) == 2
    again = reopen(loaded)
    got = again.model.predict_proba(again.vectorizer.transform(customers))
    np.testing.assert_array_equal(got, pair[1].predict_proba(pair[0].transform(customers)))


def test_a_pipeline_alone(tmp_path: Path, pipeline: Any, frame: Any, reopen: Any) -> None:
    loaded = reopen(load(LoadRequest(str(write(tmp_path / "model.pkl", pipeline)))))
    assert loaded.vectorizer is None
    np.testing.assert_array_equal(loaded.model.predict_proba(frame), pipeline.predict_proba(frame))


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"dv": 1, "model": 2}, r"found a dict with the keys 'dv', 'model': save the model itself"),
        ({}, "found an empty dict"),
        ([1, 2, 3], r"found a list of 3: int, int, int"),
        (np.arange(3), "found ndarray"),
        (StandardScaler, "found the class StandardScaler"),
        (None, "found NoneType"),
    ],
)
def test_what_is_no_model_is_named(tmp_path: Path, found: Any, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        load(LoadRequest(str(write(tmp_path / "model.bin", found))))


def test_pairs_that_are_none_are_named(tmp_path: Path, pair: Any) -> None:
    vectorizer, model = pair
    with pytest.raises(SourceError, match="StandardScaler, LogisticRegression: put the two into one Pipeline"):
        load(LoadRequest(str(write(tmp_path / "model.bin", (StandardScaler(), model)))))
    with pytest.raises(SourceError, match="found DictVectorizer: give the estimator's file"):
        load(LoadRequest(str(write(tmp_path / "model.bin", vectorizer))))
    with pytest.raises(SourceError, match=r"dv\.bin: expected a DictVectorizer, found LogisticRegression"):
        load(LoadRequest(str(write(tmp_path / "model.bin", model)), vectorizer=write(tmp_path / "dv.bin", model)))
    with pytest.raises(SourceError, match="cannot be read"):
        load(LoadRequest(str(write(tmp_path / "model.bin", model)), vectorizer=tmp_path / "missing.bin"))


def test_an_attack_in_the_vectorizer_is_refused_too(tmp_path: Path, pair: Any) -> None:
    marker = tmp_path / "marker"

    class Attack:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {marker}",)

    model = write(tmp_path / "model.bin", pair[1])
    with pytest.raises(UnsafePickle, match=r"^dv\.bin: .*posix\.system"):
        load(LoadRequest(str(model), vectorizer=write(tmp_path / "dv.bin", Attack())))
    assert not marker.exists()


def test_the_users_own_class_needs_trust_and_code(tmp_path: Path, reopen: Any) -> None:
    code = tmp_path / "code" / "features.py"
    code.parent.mkdir()
    code.write_text(FEATURES)
    (tmp_path / "train.py").write_text(TRAIN.format(imports="from features import Ratio"))
    environment = os.environ | {"PYTHONPATH": str(code.parent), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "train.py"], cwd=tmp_path, check=True, env=environment)
    source = str(tmp_path / "model.bin")
    with pytest.raises(UnsafePickle, match=r"--trust features\.Ratio --code FILE\.py"):
        load(LoadRequest(source))
    trust = frozenset({"features.Ratio"})
    with pytest.raises(SourceError, match=r"features\.Ratio is defined in no installed module: .*--code"):
        load(LoadRequest(source, trust=trust))
    loaded = load(LoadRequest(source, trust=trust, code=code))
    rows = np.arange(6.0).reshape(3, 2)
    expected = loaded.model.predict_proba(rows)
    np.testing.assert_array_equal(reopen(loaded, code.parent, trust=trust).model.predict_proba(rows), expected)
    assert not (code.parent / "__pycache__").exists()


def test_a_class_of_the_training_script_itself(tmp_path: Path, reopen: Any) -> None:
    code = tmp_path / "code" / "train.py"
    code.parent.mkdir()
    code.write_text(TRAIN.format(imports=FEATURES))
    subprocess.run([sys.executable, "train.py"], cwd=code.parent, check=True)
    trust = frozenset({"__main__.Ratio"})
    with pytest.raises(UnsafePickle, match=r"--trust __main__\.Ratio --code FILE\.py"):
        load(LoadRequest(str(code.parent / "model.bin"), code=code))
    loaded = load(LoadRequest(str(code.parent / "model.bin"), trust=trust, code=code))
    assert reopen(loaded, code.parent, trust=trust).model.predict(np.arange(6.0).reshape(3, 2)).shape == (3,)


def test_a_git_lfs_pointer_is_told(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(SourceError, match="git lfs pull"):
        load(LoadRequest(str(path)))
