"""What is written as JSON, beyond what predictions usually hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fairlead.errors import FairleadError, ModelFailed
from fairlead.web import wire
from fairlead.web.problems import STATUS, Refusal, failure


@pytest.mark.parametrize(
    ("value", "text"),
    [(np.float64(0.5), b"0.5"), (np.int64(3), b"3"), (np.bool_(True), b"true"), (np.array([1, 2]), b"[1,2]")],
)
def test_numpy_values_of_a_users_class_are_json(value: Any, text: bytes) -> None:
    assert wire.encode({"a": value}) == b'{"a":' + text + b"}"


def test_other_objects_are_refused_by_their_type() -> None:
    with pytest.raises(NotImplementedError, match="a prediction holds a object, which is not JSON"):
        wire.encode({"a": object()})


def test_every_status_has_words() -> None:
    for code, status in STATUS.items():
        refusal = Refusal(code, "detail")
        assert refusal.status == refusal.document.status == status
        assert refusal.document.title


@pytest.mark.parametrize(
    ("error", "code"),
    [(ModelFailed("no"), "model_failed"), (KeyError("no"), "internal"), (FairleadError("no"), "internal")],
)
def test_a_failure_is_500(error: Exception, code: str) -> None:
    refusal = failure(error)
    assert (refusal.status, refusal.document.type) == (500, f"urn:problem-type:fairlead:{code}")
