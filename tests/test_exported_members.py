"""The public names: one more or one less is a decision, so it is taken here."""

from __future__ import annotations

import fairlead

PUBLIC = {
    *("build", "BuildOptions", "BuildReport", "load", "Outcome", "Predictor"),
    *("Feature", "Output", "Problem", "Schema"),
    *("AsyncClient", "Client", "DeadlineExceeded", "RequestFailed", "ServiceUnavailable"),
    *("BundleError", "ConfigError", "FairleadError", "InvalidRecords", "MissingExtra", "ModelFailed", "NotCompilable"),
    *("NotFitted", "SchemaError", "ServeError", "SourceError", "UnsafePickle", "VersionSkew"),
    "__version__",
}


def test_public_names_are_these() -> None:
    assert sorted(fairlead.__all__) == sorted(PUBLIC)


def test_every_public_name_is_there() -> None:
    for name in PUBLIC:
        assert getattr(fairlead, name) is not None


def test_dir_lists_public_names() -> None:
    assert set(dir(fairlead)) == PUBLIC


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(fairlead, "Predictr")
