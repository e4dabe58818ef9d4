"""AWS Lambda: `fairlead.stream.aws_lambda.handler` scores events of Kinesis, and answers HTTP as the web service does.

    event ─┬─ Records[].kinesis ─▶ Batches: read → predict → publish ─▶ {"predictions": […]}
           └─ requestContext ────▶ Web: the ASGI app of `fairlead.web` ─▶ {"statusCode": 200, …}

What it serves and how stands in the environment, and in the file that `FAIRLEAD_CONFIG` names.
"""

from __future__ import annotations

import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from fairlead.stream.aws_lambda.function import Function

__all__ = ["handler"]


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Answer an invocation; what it needs is loaded by the first, if it was not before.

    Parameters
    ----------
    event : of Kinesis, an API Gateway, a function URL or a load balancer.
    context : as Lambda gives it.

    Raises
    ------
    FairleadError
        When nothing can be answered, or, unless `report_batch_item_failures` is set, not all could be published: Lambda
        hands all of it in again.
    """
    return _function().answer(event, context)


@cache
def _function() -> Function:
    _have_cache()
    return Function(os.environ)


def _have_cache() -> None:
    """Keep models from elsewhere under /tmp where there is no home that could be written to, as in Lambda."""
    home = os.environ.get("HOME", "")
    if not (os.environ.get("XDG_CACHE_HOME") or (Path(home).is_dir() and os.access(home, os.W_OK))):
        os.environ["XDG_CACHE_HOME"] = tempfile.gettempdir()  # of this process, which is for this function alone


# Work at import, which is a rule of the house to have none of, for this is what Lambda imports a handler for: before
# the first event, in a phase with a whole processor however small the function is, and where an error is told as one of
# the function's start. Nothing but Lambda sets this variable.
if "AWS_LAMBDA_RUNTIME_API" in os.environ:
    _function().prepare()
