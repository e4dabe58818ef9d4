"""Requests leave nothing behind that only the cyclic garbage collector could find."""

from __future__ import annotations

import asyncio
import gc
import json
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from fairlead.web.app import App
from fairlead.web.batching import Batch
from fairlead.web.calls import Call
from fairlead.web.jobs import Job
from fairlead.web.problems import Refusal

GOOD = {"tenure": 41, "charges": 79.85, "contract": "yearly"}
REQUESTS = 200


def alive() -> int:
    return sum(isinstance(one, Call | Job | Batch | Refusal) for one in gc.get_objects())


@pytest.mark.parametrize("body", [GOOD, [GOOD, GOOD], {"tenure": "x"}, [{}, GOOD]], ids=json.dumps)
def test_no_cycles(body: object, churn_bundle: Path, app_of: Callable[..., App]) -> None:
    app = app_of(churn_bundle)

    async def ask() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
            for _ in range(20):
                await client.post("/predict", json=body)
            gc.collect()
            before = alive()  # of tests that ran in this process earlier
            gc.disable()
            try:
                for _ in range(REQUESTS):
                    await client.post("/predict", json=body)
                return alive() - before
            finally:
                gc.enable()

    assert asyncio.run(ask()) < 5
