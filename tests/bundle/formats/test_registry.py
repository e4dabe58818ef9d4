from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.bundle.formats import LoadRequest, find_format, known_formats, load, reload
from fairlead.errors import SourceError


def test_every_format_keeps_the_contract(tmp_path: Path) -> None:
    formats = known_formats()
    assert set(formats) == {"lightgbm", "mlflow", "onnx", "pickle", "python", "skops", "xgboost"}
    for module in formats.values():
        assert module.SOURCES
        assert module.accepts(str(tmp_path)) is False
        assert module.accepts(str(tmp_path / "missing.bin")) is False
        assert callable(module.load)


@pytest.mark.parametrize(
    ("name", "content", "format_name"),
    [
        ("model.bin", b"x", "pickle"),
        ("model.PKL", b"x", "pickle"),
        ("model.pickle", b"x", "pickle"),
        ("model.joblib", b"x", "pickle"),
        ("model.skops", b"x", "skops"),
        ("model.onnx", b"x", "onnx"),
        ("model.json", b"x", "xgboost"),
        ("model.ubj", b"x", "xgboost"),
        ("model.txt", b"tree\nversion=v4\n", "lightgbm"),
        ("model/MLmodel", b"x", "mlflow"),
    ],
)
def test_a_source_is_known_by_its_name(tmp_path: Path, name: str, content: bytes, format_name: str) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    source = path.parent if path.name == "MLmodel" else path
    assert find_format(str(source))[0] == format_name


@pytest.mark.parametrize("name", ["model.bin", "model.json", "model.txt", "model.onnx", "model.skops", "model.ubj"])
@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x00\xff" * 50, b"{}", b"[1]", b"null", b"tree\n"])
def test_nonsense_under_a_good_name_is_a_clean_error(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(SourceError, match=name.replace(".", r"\.")):
        load(LoadRequest(str(path)))


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        find_format(str(tmp_path / "model.bin"))


def test_an_unknown_format_lists_the_known(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"x")
    with pytest.raises(SourceError) as caught:
        find_format(str(path))
    for name, module in known_formats().items():
        assert f"{name} ({module.SOURCES})" in str(caught.value)
    with pytest.raises(SourceError, match="none of them"):
        find_format(str(tmp_path))


def test_reload_names_an_unknown_format_and_an_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"unknown model format 'torch', known: .*pickle"):
        reload("torch", tmp_path)
    with pytest.raises(SourceError, match="expected one model file, got 0"):
        reload("pickle", tmp_path)
    with pytest.raises(SourceError, match="expected one model file, got 0"):
        reload("pickle", tmp_path / "missing")
