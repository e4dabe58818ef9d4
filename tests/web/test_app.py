"""The routes that are no predictions: probes, index, documentation."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def client(in_process: Callable[..., Any], churn_bundle: Path) -> Any:
    return in_process(churn_bundle)


def test_probes(client: Any) -> None:
    assert client.get("/livez").json() == {"status": "live"}
    assert client.get("/readyz").json() == {"status": "ready"}
    client.app.drain()
    draining = client.get("/readyz")
    assert draining.status_code == 503
    assert draining.headers["content-type"] == "application/problem+json"
    assert draining.headers["retry-after"] == "1"
    assert client.get("/livez").status_code == 200


def test_the_index_names_the_models_and_people_get_a_page(client: Any) -> None:
    assert client.get("/").json()["models"] == [{"name": "churn", "version": "1", "predict": "/models/churn/predict"}]
    page = client.get("/", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'self'")


def test_an_unknown_path_is_told_the_known_ones(client: Any) -> None:
    response = client.get("/nothing")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert "/models/churn/predict" in response.json()["detail"]


def test_the_docs_need_no_other_host(client: Any) -> None:
    page = client.get("/docs")
    assert page.headers["content-type"].startswith("text/html")
    links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(links) == 4
    for link in links:
        assert link.startswith("docs/")
        asset = client.get("/" + link)
        assert asset.status_code == 200
        assert len(asset.content) > 100
    assert "://" not in page.text + client.get("/docs/start.js").text
    assert page.headers["content-security-policy"].startswith("default-src 'self'")
    assert "<script>" not in page.text


def test_no_other_file_of_the_package_is_served(client: Any) -> None:
    for path in ("/docs/swagger-editor.js", "/docs/../__init__.py", "/docs/%2e%2e/__init__.py"):
        assert client.get(path).status_code == 404
