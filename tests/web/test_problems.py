"""What answers that are no success look like."""

from __future__ import annotations

import pytest

from fairlead.errors import FairleadError, ModelFailed
from fairlead.web.problems import STATUS, Refusal, failure


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
    refusal = failure(error, "abc")
    assert (refusal.status, refusal.document.type) == (500, f"urn:problem-type:fairlead:{code}")
