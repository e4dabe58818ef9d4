import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from fairlead.dashboard.rows import RowsOptions, connections, open_rows, prepare
from fairlead.dashboard.rows.connections import VARIABLE
from fairlead.errors import DashboardError
from fairlead.schema import Schema
from postgres import PASSWORD, QUOTED, PostgresServer
from proxy import proxy_to
from registry import free_port

BY_ID = "select * from seen where id = {index} -- the ride\n;\n"
Opened = Any


@pytest.fixture(scope="module")
def server(postgres_server: PostgresServer) -> PostgresServer:
    """Give a database with 1,500 rides, by number and by name."""
    postgres_server.run("CREATE TYPE zone_seen AS ENUM ('1', '2')")
    postgres_server.run(
        """CREATE TABLE seen AS SELECT i AS id, 'ride ' || i AS name, lpad(i::text, 3, '0')::char(6) AS code,
           (i * 0.25)::numeric AS distance, CASE WHEN i % 3 > 0 THEN (i % 3)::numeric(4) END AS passengers,
           (i % 2 + 1)::text::zone_seen AS zone, i % 2 = 0 AS shared,
           timestamptz '2026-10-01 00:00:00+00' + i * interval '1 hour' AS start, (i % 2)::numeric(1) AS late,
           md5(i::text)::uuid AS key, 1.50::numeric AS price FROM generate_series(1, 1500) AS i"""
    )
    return postgres_server


@pytest.fixture(autouse=True)
def _not_long(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait between two attempts to connect."""
    monkeypatch.setattr(connections, "_PAUSE_S", 0.0)


def with_password(server: PostgresServer) -> dict[str, str]:
    return {VARIABLE: server.uri}


def test_a_row_is_found_with_the_types_of_the_model(server: PostgresServer, opened: Opened) -> None:
    rows = opened(server.uri, with_password(server), index="id", target="late", query=BY_ID)
    assert rows.record("2") == {
        "distance": 0.5, "passengers": 2, "zone": "1", "shared": True, "start": "2026-10-01T02:00:00Z",
    }  # fmt: skip
    assert rows.record("3")["passengers"] is None
    assert (rows.y("3"), rows.y("2"), rows.y("0")) == (1.0, 0.0, None)
    assert rows.exists("1500")
    assert rows.indexes() is None
    rows.close()


@pytest.mark.parametrize(
    "index", ["1501", "-1", "02", "2.0", " 2", "two", "", "9" * 30, "a\0b", "\ud800", "2; drop table seen"]
)
def test_what_no_row_has_is_not_there(index: str, server: PostgresServer, opened: Opened) -> None:
    rows = opened(server.uri, with_password(server), index="id", query=BY_ID)
    assert not rows.exists(index)
    assert rows.trouble is None
    assert rows.exists("2")
    rows.close()


@pytest.mark.parametrize(
    ("column", "index", "others"),
    [
        ("name", "ride 7", ["ride 07", "' or true --"]),
        ("code", "007", ["7"]),
        ("key", "8f14e45f-ceea-167a-5a36-dedd4bea2543", ["8F14E45FCEEA167A5A36DEDD4BEA2543", "7"]),
        ("start", "2026-10-01T07:00:00Z", ["2026-10-01 07:00:00+00"]),
    ],
)
def test_an_index_may_be_of_any_type(
    column: str, index: str, others: list[str], server: PostgresServer, opened: Opened
) -> None:
    query = f"with a as (select * from seen) select * from a where {column} = {{index}}"
    rows = opened(server.uri, with_password(server), index=column, query=query)
    assert rows.record(index)["distance"] == 1.75
    assert not any(map(rows.exists, others))
    rows.close()


def test_an_index_that_is_not_selected_is_not_compared_as_text(server: PostgresServer, opened: Opened) -> None:
    query = "select distance, passengers, zone, start from seen where id = {index} and {index} > 0"
    rows = opened(server.uri, with_password(server), target="late", query=query)
    assert rows.exists("007")
    assert rows.y("007") is None
    rows.close()


def test_indexes_are_listed_by_a_query_of_their_own(server: PostgresServer, opened: Opened) -> None:
    options = {"index": "id", "query": BY_ID, "index_query": "select id from seen order by id limit 3;"}
    rows = opened(server.uri, with_password(server), **options)
    assert rows.indexes() == ["1", "2", "3"]
    rows.close()
    rows = opened(server.uri, with_password(server), **options | {"index_query": "select price from seen limit 2"})
    assert rows.indexes() == ["1.50", "1.50"]
    rows.close()
    rows = opened(server.uri, with_password(server), **options | {"index_query": "select id from seen"})
    assert rows.indexes() is None
    rows.close()


def test_the_password_is_not_kept(server: PostgresServer, schema: Schema, tmp_path: Path) -> None:
    options = RowsOptions(server.uri, index="id", target="late", query=BY_ID)
    part = prepare(options, schema, tmp_path / "rows", lambda what, share: None)
    assert part == {
        "kind": "postgres", "source": f"postgresql://fairlead@127.0.0.1:{server.port}/rides", "query": BY_ID,
        "type": "integer", "index": "id", "index_query": None, "target": "late",
    }  # fmt: skip
    assert not (tmp_path / "rows").exists()
    rows = open_rows(tmp_path / "rows", part, schema, {})
    with pytest.raises(DashboardError, match=r"no password supplied: set FAIRLEAD_ROWS to the .*or PGPASSWORD"):
        rows.exists("2")
    rows.close()


def test_the_usual_variable_has_the_password_too(
    server: PostgresServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    rows = opened(server.uri.replace(f":{QUOTED}", ""), index="id", query=BY_ID)
    assert rows.exists("2")
    rows.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "expected a query such as `select .* = {index}`, got none: see --query"),
        ({"query": "select * from seen"}, "got another: see --query"),
        ({"query": "select * from no_such where id = {index}"}, 'relation "no_such" does not exist: see --query'),
        ({"query": "select * from seen where name = '{index}'"}, "{index} is quoted in the query: write it without"),
        ({"query": "delete from seen where id = {index} returning *"}, "syntax error at or near .*: see --query"),
        ({"query": "select id from seen where id = {index}"}, "got none for distance, passengers, zone and 1 more"),
        ({"query": "select 1 as one where 1 = {index}", "index": "id"}, "has no column 'id', but one: select it too"),
        (
            {"query": "select *, null::int as id from seen where id = {index}", "index": "id"},
            "has several columns 'id'",
        ),
        ({"query": BY_ID, "index_query": "select nothing"}, 'column "nothing" does not exist: see --index-query'),
    ],
)
def test_a_query_that_does_not_do_is_refused(
    options: dict[str, str], told: str, server: PostgresServer, opened: Opened
) -> None:
    with pytest.raises(DashboardError, match=told.replace("{", r"\{")) as caught:
        opened(server.uri, **options)
    assert str(caught.value).startswith(f"postgresql://fairlead@127.0.0.1:{server.port}/rides: ")
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("select * from seen where id >= {index}", "more than one row has the index '2': see --query"),
        ("select *, 1 / (id - 2) as x from seen where id = {index}", "division by zero: see --query"),
        ("select *, name::int as x from seen where id = {index}", "invalid input syntax for type integer.*see --query"),
        ("select distance, passengers, zone, 'soon' as start from seen where id = {index}",
         "does not fit the model: start: expected a date and time"),
        ("select *, pg_sleep(3)::text as x from seen where id = {index}", "statement timeout: it may take 0.5 s"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_had_is_told(
    query: str, told: str, server: PostgresServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = opened(server.uri, with_password(server), query=query)
    monkeypatch.setattr(connections, "_TIMEOUT_S", 0.5)
    with pytest.raises(DashboardError, match=told):
        rows.record("2")
    assert rows.trouble is not None
    rows.close()


def test_nothing_can_be_changed(server: PostgresServer, opened: Opened) -> None:
    server.run("CREATE OR REPLACE FUNCTION spoil() RETURNS int LANGUAGE sql AS 'DELETE FROM seen RETURNING 1'")
    rows = opened(server.uri, with_password(server), query="select *, spoil() from seen where id = {index}")
    with pytest.raises(DashboardError, match="cannot execute DELETE in a read-only transaction"):
        rows.record("2")
    rows.close()


def test_many_threads_ask_at_once(server: PostgresServer, opened: Opened) -> None:
    rows = opened(server.uri, with_password(server), index="id", query=BY_ID)
    barrier = threading.Barrier(4)

    def ask(thread: int) -> list[float]:
        barrier.wait(30)
        return [rows.record(str(index))["distance"] for index in range(1 + thread, 200, 4)]

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(ask, range(4)))
    assert sorted(itertools.chain(*found)) == [index * 0.25 for index in range(1, 200)]
    rows.close()


def test_after_the_server_was_away_rows_are_there_again(server: PostgresServer, opened: Opened) -> None:
    rows = opened(server.uri, with_password(server), index="id", query=BY_ID)
    assert rows.exists("1")
    end_all = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'fairlead'"
    assert server.run(end_all) == [(True,)]
    assert rows.exists("2")
    rows.close()


@pytest.mark.parametrize(
    ("fault", "told"), [("truncate", "server closed the connection unexpectedly"), ("stall", "no answer within 0.2 s")]
)
def test_a_line_that_breaks_is_told_and_rows_are_there_again(
    fault: Any, told: str, server: PostgresServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    with proxy_to(server.uri) as proxy:
        uri = server.uri.replace(str(server.port), str(urlsplit(proxy.url).port)) + "?connect_timeout=2"
        rows = opened(uri, {VARIABLE: uri}, index="id", query=BY_ID)
        assert rows.exists("1")
        monkeypatch.setattr(connections, "_TIMEOUT_S", 0.1)
        monkeypatch.setattr(connections, "_MARGIN_S", 0.1)
        proxy.fail(fault)
        with pytest.raises(DashboardError, match=f"{told}: see whether the server is up; rows are shown again once it"):
            rows.exists("2")
        monkeypatch.undo()
        assert rows.trouble is not None
        assert rows.exists("1")  # is kept
        proxy.reset()
        monkeypatch.setattr(connections, "_PAUSE_S", 0.0)
        assert rows.exists("2")
        assert rows.trouble is None
        rows.close()


def test_a_server_that_is_not_there_is_not_asked_by_everybody(
    server: PostgresServer, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = server.uri.replace(str(server.port), str(free_port()))
    rows = opened(server.uri, {VARIABLE: away}, index="id", query=BY_ID)
    with pytest.raises(DashboardError, match=r"Connection refused: see whether the server is up") as first:
        rows.exists("1")
    with pytest.raises(DashboardError, match=r"Connection refused") as second:
        rows.exists("2")
    assert second.value.__cause__ is not first.value.__cause__
    monkeypatch.setattr(connections, "_PAUSE_S", 1000.0)
    with pytest.raises(DashboardError, match=r"Connection refused") as third:
        rows.exists("3")
    assert third.value.__cause__ is second.value.__cause__
    rows.close()


def test_a_forked_process_has_its_own_connection(server: PostgresServer, opened: Opened) -> None:
    query = "select *, pg_backend_pid() as late from (select * from (select distance, passengers, zone, start, id from "
    rows = opened(server.uri, with_password(server), target="late", query=query + "seen) a where id = {index}) b")
    process = rows.y("1")
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, str(rows.y("2")).encode())
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reading, 100) not in (b"", str(process).encode())
    assert rows.y("3") == process
    os.close(reading)
    os.close(writing)
    rows.close()
