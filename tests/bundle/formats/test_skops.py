from __future__ import annotations

import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn
import skops.io
from sklearn.preprocessing import FunctionTransformer

from fairlead.bundle.formats import LoadRequest, load
from fairlead.bundle.user_code import load_module
from fairlead.errors import SourceError, UnsafePickle, VersionSkew


def rewrite(data: bytes, old: str, new: str) -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name == "schema.json":
                assert old.encode() in content
                content = content.replace(old.encode(), new.encode())
            target.writestr(name, content)
    return out.getvalue()


def test_a_pipeline(tmp_path: Path, pipeline: Any, frame: Any, reopen: Any) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(skops.io.dumps(pipeline))
    loaded = load(LoadRequest(str(path)))
    assert loaded.versions == {"scikit-learn": sklearn.__version__}
    assert loaded.warnings == ()
    for again in (loaded, reopen(loaded)):
        np.testing.assert_array_equal(again.model.predict_proba(frame), pipeline.predict_proba(frame))


def test_a_pair(tmp_path: Path, pair: Any, customers: Any) -> None:
    path = tmp_path / "model.skops"
    path.write_bytes(skops.io.dumps(pair))
    loaded = load(LoadRequest(str(path)))
    got = loaded.model.predict_proba(loaded.vectorizer.transform(customers))
    np.testing.assert_array_equal(got, pair[1].predict_proba(pair[0].transform(customers)))


def test_a_foreign_type_needs_trust(tmp_path: Path) -> None:
    code = tmp_path / "features.py"
    code.write_text("class Foo:\n    def predict(self, X):\n        return [1 for _ in X]\n")
    path = tmp_path / "model.skops"
    path.write_bytes(skops.io.dumps(load_module(code, "features").Foo()))
    with pytest.raises(UnsafePickle, match=r"--trust features\.Foo"):
        load(LoadRequest(str(path), code=code))
    loaded = load(LoadRequest(str(path), trust=frozenset({"features.Foo"}), code=code))
    assert loaded.model.predict([0, 0]) == [1, 1]


def test_a_function_from_elsewhere_is_refused(tmp_path: Path) -> None:
    import os

    path = tmp_path / "model.skops"
    path.write_bytes(skops.io.dumps(FunctionTransformer(os.system)))
    with pytest.raises(UnsafePickle, match=r"posix\.system"):
        load(LoadRequest(str(path)))


def test_a_newer_scikit_learn_is_refused_and_an_older_one_told(tmp_path: Path, pipeline: Any, frame: Any) -> None:
    data = skops.io.dumps(pipeline)
    version = f'\\"{sklearn.__version__}\\"'
    path = tmp_path / "model.skops"
    path.write_bytes(rewrite(data, version, '\\"99.1.0\\"'))
    with pytest.raises(VersionSkew, match=r"pip install scikit-learn==99\.1\.0"):
        load(LoadRequest(str(path)))
    path.write_bytes(rewrite(data, version, '\\"1.2.0\\"'))
    loaded = load(LoadRequest(str(path)))
    assert loaded.versions == {"scikit-learn": "1.2.0"}
    assert len(loaded.warnings) == 1
    assert loaded.model.predict(frame).shape == (30,)


@pytest.mark.parametrize("part", ["schema", "array"])
def test_broken_files_are_told(tmp_path: Path, pipeline: Any, part: str) -> None:
    path = tmp_path / "model.skops"
    data = skops.io.dumps(pipeline)
    path.write_bytes(rewrite(data, '"__loader__"', '"__lauder__"') if part == "schema" else data[: len(data) // 2])
    with pytest.raises(SourceError, match=r"^model\.skops: "):
        load(LoadRequest(str(path)))
