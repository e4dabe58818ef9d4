"""What test_schemathesis.py tells schemathesis: which refusals of described data are no findings."""

from __future__ import annotations

import json
import re
from typing import Any

import schemathesis
from schemathesis.openapi.checks import RejectedPositiveData

# Of these forms a JSON schema can say only that they are strings, so that any text counts as good data.
NOT_JSON = (
    "text/csv",
    "application/jsonlines",
    "application/octet-stream",
    "application/vnd.apache.arrow.stream",
)
# What a JSON schema has no words for, by a problem's path, what it expected and what it got.
UNSAYABLE = re.compile(
    # 41.0 is an integer to JSON Schema; to a feature of type int, a shape or a tensor of INT64 only 41 is.
    r".* an integer( of \d+ bits( without a sign)?)?, got a number"
    # The sum or product of good features may be too large for a float64.
    r"|.* features for which the model gives a finite number, got others"
    # Arrays whose lengths have to agree with each other, or with a shape.
    r"|.* an array of \d+ values, as the first, got an array of \d+"
    r"|.* \d+ elements, as the shape says, got \d+"
    r"|.* \d+ rows, as the first, got \d+"
    r"|.* an array, or rows as the shape says, got rows of other lengths"
    # Rows whose values have to be in the order of names that stand elsewhere.
    r"|\$\.dataframe_split\.data\[.*"
)


@schemathesis.hook
def filter_failure(context: Any, failure: Any, case: Any, response: Any) -> bool:
    """Say whether a failed check is a finding."""
    if not isinstance(failure, RejectedPositiveData):
        return True
    if case.media_type in NOT_JSON:
        return False
    problems = json.loads(response.content)["errors"]
    told = [f"{problem['path']} {problem['expected']}, got {problem['got']}" for problem in problems]
    return not told or not all(UNSAYABLE.fullmatch(one) for one in told)
