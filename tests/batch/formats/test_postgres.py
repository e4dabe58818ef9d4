import pickle
import subprocess
import sys
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest

from fairlead.batch.formats import postgres
from fairlead.batch.formats.form import CHUNK_ROWS, ReadOptions
from fairlead.errors import InputError
from fairlead.predict.tables import checked_table
from fairlead.schema import Schema
from postgres import PASSWORD, QUOTED, PostgresServer
from registry import free_port

SCHEMA = Schema.parse(
    {
        "features": [
            {"name": "distance", "type": "float"},
            {"name": "passengers", "type": "int", "nullable": True},
            {"name": "zone", "type": "string", "categories": ["north", "south"], "nullable": True},
            {"name": "shared", "type": "bool"},
            {"name": "day", "type": "datetime"},
        ]
    }
)
N_ROWS = 150_000
RIDES = "SELECT * FROM rides ORDER BY ride_id"


@pytest.fixture(scope="session")
def rides(postgres_server: PostgresServer) -> PostgresServer:
    """Give a database with a table of rides."""
    postgres_server.run(
        f"""CREATE TABLE rides AS SELECT i AS ride_id, (i * 0.25)::numeric AS distance,
            CASE WHEN i % 3 > 0 THEN (i % 3)::smallint END AS passengers, 'north' AS zone, i % 2 = 0 AS shared,
            date '2026-10-01' + i % 30 AS day, (i * 0.01)::numeric(12, 2) AS fare, now() AS at,
            '{{"a": 1}}'::jsonb AS note, '00000000-0000-0000-0000-0000000000ff'::uuid AS id
            FROM generate_series(1, {N_ROWS}) AS i"""
    )
    return postgres_server


def test_rows_come_with_types_that_features_take(rides: PostgresServer) -> None:
    with postgres.reader(rides.uri, f"{RIDES} LIMIT 3 -- some\n;\n", SCHEMA, ReadOptions()) as reader:
        assert reader.n_rows is None
        ((chunk, share),) = list(reader.chunks())
        rows = pickle.loads(pickle.dumps(reader.parser)).rows(pickle.loads(pickle.dumps(chunk)))
        assert share is None
        assert rows.kept.schema.names == reader.kept_schema.names
    checked = checked_table(rows.data, SCHEMA)
    assert checked.rejections == {}
    assert checked.table.to_pylist()[2] == {
        "distance": 0.75, "passengers": None, "zone": "north", "shared": False,
        "day": datetime(2026, 10, 4, tzinfo=UTC),
    }  # fmt: skip
    kept = rows.kept.to_pylist()[2]
    assert kept["fare"] == Decimal("0.03")
    assert kept["note"] == '{"a": 1}'
    assert kept["id"] == str(uuid.UUID(int=255))
    assert str(reader.kept_schema.field("at").type) == "timestamp[us, tz=UTC]"


def test_a_number_without_precision_is_a_float_and_nan_is_null(rides: PostgresServer) -> None:
    query = "SELECT *, distance AS a, 'NaN'::numeric AS b, 'NaN'::numeric(4, 1) AS c, day AS d FROM rides LIMIT 1"
    with postgres.reader(rides.uri, query, SCHEMA, ReadOptions(keep=("a", "b", "c", "d"))) as reader:
        assert list(map(str, reader.kept_schema.types)) == ["double", "double", "decimal128(4, 1)", "date32[day]"]
        ((chunk, _),) = list(reader.chunks())
        row = reader.parser.rows(chunk).kept.to_pylist()[0]
    assert (row["b"], row["c"]) == (None, None)
    assert isinstance(row["d"], date)


def test_an_answer_without_rows_has_columns(rides: PostgresServer) -> None:
    with postgres.reader(rides.uri, "SELECT * FROM rides WHERE false", SCHEMA, ReadOptions()) as reader:
        assert reader.kept_schema.names[:2] == ["ride_id", "distance"]
        assert sum(chunk.num_rows for chunk, _ in reader.chunks()) == 0


def test_all_rows_come_in_chunks_that_are_the_same_each_time(rides: PostgresServer) -> None:
    found: list[list[pa.Table]] = []
    for _ in range(2):
        with postgres.reader(rides.uri, RIDES, SCHEMA, ReadOptions()) as reader:
            found.append([chunk for chunk, _ in reader.chunks()])
    assert found[0] == found[1]
    assert len(found[0]) > 1
    assert all(chunk.num_rows <= CHUNK_ROWS for chunk in found[0])
    assert [i for chunk in found[0] for i in chunk["ride_id"].to_pylist()] == list(range(1, N_ROWS + 1))


def test_memory_does_not_grow_with_the_answer(rides: PostgresServer, tmp_path: Path) -> None:
    program = tmp_path / "read.py"
    program.write_text(
        """
import resource, sys
from fairlead.batch.formats import postgres
from fairlead.batch.formats.form import ReadOptions
from fairlead.schema import Schema
schema = Schema.parse({"features": [{"name": "i", "type": "int"}]})
def peak(n_rows):
    query = f"SELECT i, repeat('x', 500) AS pad FROM generate_series(1, {n_rows}) AS i"
    with postgres.reader(sys.argv[1], query, schema, ReadOptions()) as reader:
        assert sum(chunk.num_rows for chunk, _ in reader.chunks()) == n_rows
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
few = peak(50_000)  # 25 MB
print(peak(400_000) - few)
"""
    )
    done = subprocess.run([sys.executable, program, rides.uri], capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 50_000  # KiB, of 200 MB


def test_a_reader_may_be_left_early(rides: PostgresServer) -> None:
    with postgres.reader(rides.uri, RIDES, SCHEMA, ReadOptions()) as reader:
        next(iter(reader.chunks()))
    assert rides.run("SELECT count(*) FROM rides") == [(N_ROWS,)]


def test_nothing_is_changed(rides: PostgresServer) -> None:
    for query in ("DELETE FROM rides", "DELETE FROM rides RETURNING *", "CREATE TABLE other (i int)"):
        with pytest.raises(InputError, match="see --query"):
            postgres.reader(rides.uri, query, SCHEMA, ReadOptions())
    assert rides.run("SELECT count(*) FROM rides") == [(N_ROWS,)]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("SELEC 1", 'the query is refused: syntax error at or near "SELEC": see --query'),
        ("SELECT * FROM nope", 'relation "nope" does not exist'),
        ("SELECT 1; SELECT 2", "cannot insert multiple commands"),
        ("", "the query is refused: .*see --query"),
        ("SHOW work_mem", "the query is refused"),
        ("SELECT distance FROM rides", "passengers: expected a column of int, got none"),
        ("SELECT *, 1 AS zone FROM rides", "got zone twice"),
    ],
)
def test_a_query_that_is_refused_is_told(rides: PostgresServer, query: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        postgres.reader(rides.uri, query, SCHEMA, ReadOptions())
    assert str(caught.value).startswith(f"postgresql://fairlead:***@127.0.0.1:{rides.port}/rides: ")


def test_a_query_that_fails_midway_is_told(rides: PostgresServer) -> None:
    query = f"SELECT *, 1 / ({N_ROWS} - ride_id) AS x FROM rides"
    with (
        postgres.reader(rides.uri, query, SCHEMA, ReadOptions()) as reader,
        pytest.raises(InputError, match="the answer broke off: division by zero"),
    ):
        list(reader.chunks())


def test_a_server_that_goes_away_is_told(rides: PostgresServer) -> None:
    query = "SELECT * FROM rides AS gone, generate_series(1, 50)"
    with postgres.reader(rides.uri, query, SCHEMA, ReadOptions()) as reader:
        chunks = reader.chunks()
        next(chunks)
        found = "FROM pg_stat_activity WHERE query LIKE 'COPY%gone%' AND pid <> pg_backend_pid()"
        assert rides.run(f"SELECT pg_terminate_backend(pid) {found}") == [(True,)]
        with pytest.raises(InputError, match=r"the answer broke off: .*(closed the connection|terminat)"):
            list(chunks)


@pytest.mark.parametrize("password", ["wrong", "wr%20%25ong"])
def test_a_wrong_password_is_told_without_it(rides: PostgresServer, password: str) -> None:
    with pytest.raises(InputError, match="no connection: password authentication failed for user") as caught:
        postgres.reader(rides.uri.replace(QUOTED, password), RIDES, SCHEMA, ReadOptions())
    assert "wr" not in str(caught.value)


def test_a_server_that_is_not_there_is_told() -> None:
    uri = f"postgresql://ana:{QUOTED}@127.0.0.1:{free_port()}/rides"
    with pytest.raises(InputError, match=r"no connection: .*Connection refused") as caught:
        postgres.reader(uri, RIDES, SCHEMA, ReadOptions())
    assert QUOTED not in str(caught.value)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://ana:sec/ret@db/x",
        "postgresql://ana:sec@ret@db/x",
        "postgresql://ana:sec ret@db/x",
        "postgresql://ana:sec%zzret@127.0.0.1:1/x",
        "postgresql://127.0.0.1:1/x?user=ana&password=sec%zzret",
        "postgresql://ana:sec?ret@127.0.0.1:1/x?nothing=1",
    ],
)
def test_an_address_of_a_wrong_form_is_told_without_its_password(uri: str) -> None:
    with pytest.raises(InputError) as caught:
        postgres.reader(uri, RIDES, SCHEMA, ReadOptions())
    assert "sec" not in str(caught.value)
    assert "ret" not in str(caught.value)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("postgresql://ana:x@db:5432/rides", "postgresql://ana:***@db:5432/rides"),
        ("postgresql://ana@db/rides", "postgresql://ana@db/rides"),
        ("postgres:///rides?user=a&password=x&sslmode=on", "postgres:///rides?user=a&password=***&sslmode=on"),
        ("postgresql://db/rides?sslpassword=x", "postgresql://db/rides?sslpassword=***"),
        ("postgresql://db:5432/rides", "postgresql://db:5432/rides"),
        ("postgresql://:x@db/rides", "postgresql://:***@db/rides"),
    ],
)
def test_an_address_is_shown_without_its_password(uri: str, shown: str) -> None:
    assert postgres.display(uri) == shown
