"""`fairlead stream` as a user starts it, on files."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import pty
import re
import resource
import shutil
import signal
import socket
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead import cli, display
from fairlead.stream.progress import Status
from load import eventually
from streams import Pricers, Streaming, event, told


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Callable[..., Streaming]]:
    """Start consumers on the files of one folder, one after the other or together."""
    with contextlib.ExitStack() as stack:

        def start(model: Path | None, *flags: object, **how: Any) -> Streaming:
            return stack.enter_context(Streaming(tmp_path, model, flags=flags, **how))

        yield start


def fill(folder: Path, *numbers: int, data: bytes = b"") -> None:
    """Add events, and a line after them."""
    with (folder / "in.jsonl").open("ab") as file:
        file.write(b"".join(event(number) + b"\n" for number in numbers) + data)


def put(bundle: Path, place: Path) -> Path:
    """Put a bundle in the place of another as a careful operator does, by renaming."""
    fresh = shutil.copytree(bundle, place.with_name(place.name + ".new"))
    if place.exists():
        place.rename(place.with_name(place.name + ".old"))
    fresh.rename(place)
    shutil.rmtree(place.with_name(place.name + ".old"), ignore_errors=True)
    return place


def limit_files(one: Streaming, size_bytes: int) -> None:
    """Have a process fail to write beyond a size, as on a full disk."""
    resource.prlimit(one.process.pid, resource.RLIMIT_FSIZE, (size_bytes, resource.RLIM_INFINITY))


def test_a_file_is_scored_to_its_end_and_once(started: Any, bundle: Path, tmp_path: Path) -> None:
    fill(tmp_path, 0, 1, data=b"rubbish\n")
    fill(tmp_path, 2)
    one = started(bundle, follows=False)
    assert one.process.wait(20) == 0
    assert one.out() == "price 1 · 4 events · 0/s · 1 dead letters\n"
    assert [(answer["prediction"], answer["version"]) for answer in one.answers()] == [
        ({"price": number + 0.5, "id": number}, "1") for number in range(3)
    ]
    (letter,) = one.dead_letters()
    assert (letter["code"], letter["data"], letter["from"]) == (
        "not_json",
        "cnViYmlzaA==",
        f"file://{tmp_path}/in.jsonl",
    )
    assert "Traceback" not in one.log()
    again = started(bundle, follows=False)
    assert again.process.wait(20) == 0
    assert again.out() == "price 1 · 0 events · 0/s · 0 dead letters\n"
    assert len(again.answers()) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_and_the_next_one_goes_on_without_a_gap(
    started: Any, bundle: Path, tmp_path: Path, number: int
) -> None:
    fill(tmp_path, *range(2000))
    one = started(bundle, "--max-records", 20)
    eventually(one.answers)
    assert one.end(number) == 0
    done = len(one.answers())
    assert "not ready" not in one.out()
    again = started(bundle)
    again.answered(range(2000))
    fill(tmp_path, *range(2000, 2010))
    again.answered(range(2010))
    assert again.end() == 0
    assert again.out().startswith(f"price 1 · {2010 - done:,} events")
    assert "Traceback" not in one.log() + again.log()


def test_an_output_that_is_away_is_waited_for_and_told(started: Any, bundle: Path, tmp_path: Path) -> None:
    fill(tmp_path, *range(2000))
    one = started(bundle, "--log-format", "json")
    one.answered(range(2000))
    one.ready()
    limit_files(one, (tmp_path / "out.jsonl").stat().st_size + 10)
    fill(tmp_path, *range(2000, 2100))
    eventually(lambda: one.get("/readyz")[0] == 503)
    status = json.loads(one.get("/readyz")[1])
    assert status["reason"] == f"publish: {tmp_path}/out.jsonl: cannot be written to: File too large"
    assert (status["model"], status["version"], status["records"]) == ("price", "1", 2000)
    assert one.get("/livez")[0] == 200
    assert one.metric("fairlead_stream_retries_total", model="price", step="publish") >= 1
    # It finishes when it is told to stop, and its output is there again.
    one.process.terminate()
    eventually(lambda: json.loads(one.get("/readyz")[1])["reason"].startswith("it is stopping; publish"))
    limit_files(one, resource.RLIM_INFINITY)
    assert one.process.wait(20) == 0
    lines = [json.loads(line) for line in one.log().splitlines()]
    assert [line["level"] for line in lines if "cannot be written to" in line["message"]] == ["WARNING"]
    assert any(line["message"].startswith("publish: it succeeded at try ") for line in lines)
    assert one.dead_letters() == []
    again = started(bundle, follows=False)
    assert again.process.wait(20) == 0
    again.answered(range(2100))


@pytest.mark.parametrize("how", ["signal", "time"])
def test_a_second_signal_or_the_time_ends_it_and_nothing_is_lost(
    started: Any, bundle: Path, tmp_path: Path, how: str
) -> None:
    fill(tmp_path, *range(10))
    one = started(bundle, "--shutdown-timeout-s", 0.3 if how == "time" else 60)
    one.answered(range(10))
    with (tmp_path / "out.jsonl").open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)  # its output hangs
        fill(tmp_path, *range(10, 20))
        eventually(lambda: re.search(rf"-> FLOCK .* {one.process.pid} ", Path("/proc/locks").read_text()))
        one.process.terminate()
        if how == "signal":
            eventually(lambda: "it is stopping" in one.get("/readyz")[1])
            one.process.terminate()
        assert one.process.wait(10) == 0
    assert "stopped before all was committed: the rest is handed out again" in one.log()
    assert "Traceback" not in one.log()
    again = started(bundle, follows=False)
    assert again.process.wait(20) == 0
    again.answered(range(20))


def test_a_signal_before_it_has_begun_ends_it(started: Any, bundle: Path, tmp_path: Path) -> None:
    fill(tmp_path, 1)
    one = started(bundle)
    eventually(lambda: one.get("/livez")[0])
    assert one.end() == 0
    assert "Traceback" not in one.log()


def test_killed_again_and_again_it_answers_every_event(started: Any, bundle: Path, tmp_path: Path) -> None:
    answers, turns, each = tmp_path / "out.jsonl", 5, 1500
    count = turns * each
    for turn in range(turns):
        fill(tmp_path, *range(turn * each, (turn + 1) * each))
        before = answers.stat().st_size if answers.exists() else 0
        one = started(bundle, "--max-records", 30 + turn)
        eventually(lambda before=before: answers.exists() and answers.stat().st_size > before + 40_000)
        one.process.kill()
        assert one.process.wait() == -signal.SIGKILL
    last = started(bundle, follows=False)
    assert last.process.wait(30) == 0
    found: defaultdict[str, set[bytes]] = defaultdict(set)
    torn = []
    for line in answers.read_bytes().splitlines():
        try:
            answer = json.loads(line)
        except ValueError:
            torn.append(line)
            continue
        assert answer["prediction"]["price"] == answer["prediction"]["id"] + 0.5
        found[answer["idempotency_key"]].add(line)
    # Every event is answered, and all that is said under one key is the same.
    (lines,) = zip(*found.values(), strict=True)
    assert sorted(json.loads(line)["prediction"]["id"] for line in lines) == list(range(count))
    # A kill may cut off what is being written, which is then written again.
    assert len(torn) <= turns
    assert all(any(line.startswith(one_) for line in lines) for one_ in torn)
    assert last.dead_letters() == []


def test_events_go_on_as_versions_change(started: Any, pricers: Pricers, tmp_path: Path) -> None:
    place = put(pricers.build("1"), tmp_path / "price")
    (tmp_path / "in.jsonl").touch()
    one = started(place, "--refresh-s", 0.2)
    is_over = threading.Event()
    sent = 0

    def send() -> None:
        nonlocal sent
        while not is_over.wait(0.005):
            fill(tmp_path, sent)
            sent += 1

    sending = threading.Thread(target=send)
    sending.start()
    try:
        eventually(one.answers)
        put(pricers.build("2"), place)
        eventually(lambda: one.answers()[-1]["version"] == "2")
        put(pricers.build("4"), place)
        eventually(lambda: one.answers()[-1]["version"] == "4")
    finally:
        is_over.set()
        sending.join()
    one.answered(range(sent))
    versions = [answer["version"] for answer in one.answers()]
    assert versions == sorted(versions)
    assert set(versions) == {"1", "2", "4"}
    assert all(
        one_["prediction"]["price"] == int(one_["version"]) * (one_["prediction"]["id"] + 0.5) for one_ in one.answers()
    )
    assert json.loads(one.get("/readyz")[1])["version"] == "4"
    assert one.metric("fairlead_reloads_total", model="price", result="swapped") == 2
    assert one.end() == 0
    assert "Traceback" not in one.log()


def test_sighup_has_it_look_for_a_newer_version(started: Any, pricers: Pricers, tmp_path: Path) -> None:
    place = put(pricers.build("1"), tmp_path / "price")
    fill(tmp_path, 0)
    one = started(place)
    one.answered([0])
    one.ready()
    one.process.send_signal(signal.SIGHUP)
    eventually(lambda: "price: reload: unchanged, version 1" in one.log())
    put(pricers.build("2"), place)
    one.process.send_signal(signal.SIGHUP)
    eventually(lambda: "price: reload: swapped, version 2" in one.log())
    assert json.loads(one.get("/readyz")[1])["version"] == "2"
    put(pricers.build("3", "cost"), place)
    one.process.send_signal(signal.SIGHUP)
    eventually(lambda: "price: goes on as it is: " in one.log())
    fill(tmp_path, 1)
    one.answered([0, 1])
    assert [answer["version"] for answer in one.answers()] == ["1", "2"]
    assert one.end() == 0


def configuration(folder: Path, models: dict[str, Any], **stream: Any) -> Path:
    path = folder / "fairlead.yaml"
    path.write_text(json.dumps({"models": models, "stream": stream}))
    return path


def test_a_canary_that_fails_is_taken_back(started: Any, pricers: Pricers, tmp_path: Path) -> None:
    canary = {"source": str(pricers.build("2")), "weight": 0.5, "min_requests": 20}
    config = configuration(tmp_path, {"price": {"source": str(pricers.build("1")), "canary": canary}})
    fill(tmp_path, *range(100))
    one = started(None, "--config", config)
    one.answered(range(100))
    assert {answer["version"] for answer in one.answers()} == {"1", "2"}
    assert 0 < one.metric("fairlead_rows_total", model="price", version="2") < 100
    pricers.fail("2")
    fill(tmp_path, *range(100, 200))
    one.answered(range(200))
    assert {answer["version"] for answer in one.answers()[100:]} == {"1"}
    eventually(lambda: one.metric("fairlead_rollbacks_total", model="price", version="2") == 1)
    pricers.fail()
    fill(tmp_path, *range(200, 300))
    one.answered(range(300))
    assert {answer["version"] for answer in one.answers()[200:]} == {"1"}
    assert one.dead_letters() == []
    assert one.end() == 0


def test_flags_go_over_the_environment_and_that_over_the_file(started: Any, pricers: Pricers, tmp_path: Path) -> None:
    sources = {name: {"source": str(pricers.build(version))} for name, version in (("one", "1"), ("two", "2"))}
    config = configuration(
        tmp_path, sources, model="one", results="file", group="file", log_format="json", checkpoints="kept/here.sqlite"
    )
    fill(tmp_path, 1)
    environ = {"FAIRLEAD_CONFIG": str(config), "FAIRLEAD_STREAM_RESULTS": "environment", "FAIRLEAD_STREAM_GROUP": "g"}
    one = started(None, "--results", "flag", "--model", "two", follows=False, environ=environ)
    assert one.process.wait(20) == 0
    (answer,) = one.answers()
    assert (answer["model"], answer["version"], answer["flag"]) == ("two", "2", {"price": 3.0, "id": 1})
    assert json.loads(one.log().splitlines()[0])["level"] == "INFO"
    assert (tmp_path / "kept" / "here.sqlite").exists()
    assert not (tmp_path / "state" / "checkpoints.sqlite").exists()
    # Another group reads it all again.
    again = started(None, "--model", "one", "--group", "other", follows=False, environ=environ)
    assert again.process.wait(20) == 0
    assert [one_["version"] for one_ in told(tmp_path / "out.jsonl")] == ["2", "1"]


def test_every_family_is_on_the_port(started: Any, bundle: Path, tmp_path: Path) -> None:
    fill(tmp_path, 0, 1, data=b"rubbish\n")
    one = started(bundle)
    eventually(one.dead_letters)
    one.ready()
    eventually(lambda: one.metric("fairlead_stream_records_total", model="price", result="published") == 2)
    assert one.metric("fairlead_stream_records_total", model="price", result="dead_letter") == 1
    assert one.metric("fairlead_stream_dead_letters_total", model="price", reason="not_json") == 1
    assert one.metric("fairlead_rows_total", model="price", version="1") == 2
    assert one.metric("fairlead_rejected_records_total", model="price", version="1") == 1
    text = one.get("/metrics")[1]
    assert 'fairlead_model_info{digest="' in text
    assert "fairlead_batch_rows_count" in text
    status = json.loads(one.get("/readyz")[1])
    assert (status["records"], status["dead_letters"], status["retries"]) == (3, 1, 0)
    assert [lag["partition"] for lag in status["lag"]] == [str(tmp_path / "in.jsonl")]
    assert one.end() == 0


def test_a_terminal_has_one_line_that_is_kept_up_to_date(started: Any, bundle: Path, tmp_path: Path) -> None:
    fill(tmp_path, *range(7))
    leader, follower = pty.openpty()
    one = started(bundle, environ={"TERM": "xterm", "COLUMNS": "120"}, stderr=follower)
    os.close(follower)
    shown = b""
    while b"7 events" not in shown:
        shown += os.read(leader, 65536)
    one.process.terminate()
    with contextlib.suppress(OSError):  # as Linux ends a terminal that nobody writes to any more
        while data := os.read(leader, 65536):
            shown += data
    os.close(leader)
    assert one.process.wait(20) == 0
    text = shown.decode()
    assert "price 1 · 7 events · " in text
    assert "fairlead.stream: price 1: from file://" in text
    assert "\x1b[?25h" in text, "the cursor is not given back"
    assert one.out().startswith("price 1 · 7 events")


def test_where_nobody_watches_a_line_tells_now_and_then_what_it_did(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("fairlead"), "propagate", True)  # whoever logged in this process before
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    caplog.set_level(logging.INFO, "fairlead.stream")
    now_s = [0.0]
    monkeypatch.setattr("fairlead.display.time.monotonic", lambda: now_s[0])
    with display.stream_status() as tell:
        for at_s, records in ((30, 5), (61, 5), (90, 6), (122, 6), (190, 6), (200, 7)):
            now_s[0] = at_s
            tell(Status("ready", "", "price", "1", records, 0, 0, 0.0, []))
    assert [record.getMessage() for record in caplog.records] == [
        f"price 1 · {records} events · 0/s · 0 dead letters" for records in (5, 6, 7)
    ]


def test_what_ends_it_while_it_runs_is_2_and_one_message(started: Any, bundle: Path, tmp_path: Path) -> None:
    fill(tmp_path, *range(10))
    one = started(bundle)
    one.answered(range(10))
    (tmp_path / "in.jsonl").write_bytes(b"")
    assert one.process.wait(20) == 2
    size = sum(len(event(number)) + 1 for number in range(10))
    message = f"fairlead: {tmp_path}/in.jsonl: expected a file that only grows, got one that was cut to 0 bytes"
    assert one.log().splitlines()[-1] == f"{message} when {size} were read: name another group"
    assert "Traceback" not in one.log()
    assert one.out() == ""


def test_what_it_reads_from_may_go_away(started: Any, bundle: Path, tmp_path: Path) -> None:
    fill(tmp_path, 1)
    one = started(bundle)
    one.answered([1])
    (tmp_path / "in.jsonl").unlink()
    assert one.process.wait(20) == 2
    assert one.log().splitlines()[-1].endswith("it was taken away: name another group for one that takes its place")


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str]]:
    """Give a command in this process that ends before it logs: its code and what it says, which is one message."""

    def run(*arguments: object, **environ: str) -> tuple[int, str]:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["fairlead", "stream", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
        monkeypatch.setattr("fairlead.monitor.logs.configure", lambda *_: None)
        with pytest.raises(SystemExit) as end:
            cli.main()
        out, err = capsys.readouterr()
        assert out == ""
        assert "Traceback" not in err
        assert "s3cret" not in err
        return int(end.value.code or 0), err

    return run


PLACES = ("--from", "file://in", "--to", "file://out", "--dead-letter", "file://dead", "--state-directory", "state")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "--from: expected an address such as kinesis://rides, got nothing"),
        (("--from", "rides"), "--from: expected an address such as kinesis://rides or redis://host/rides, got 'rides'"),
        ((*PLACES, "--to", "pigeon://me:s3cret@loft/x"), "pigeon://loft/x: no such broker: known are amqp://"),
        ((*PLACES, "--to", "redis://me:s3cret@host/a/b"), "redis://host/a/b: "),
        ((*PLACES, "--from", "redis://me:s3cret@host/a?dbb=1"), "redis://host/a?dbb=1: no such option: dbb"),
        ((*PLACES, "--from", "me:s3cret@host"), "--from: expected an address"),
        ((*PLACES, "--max-wait-s", -1), "--max-wait-s: expected seconds, from 0 to 86400, got -1.0"),
        ((*PLACES, "--id", "a..b"), "--id: expected a place such as ride, or event.ride for a nested one"),
        ((*PLACES, "--lease-s", 0), "--lease-s: expected seconds"),
        ((*PLACES, "--features", "a", "--id", "a.b"), "id: expected another place than a.b"),
        ((*PLACES, "--results", "version"), "results: expected another name than version"),
        ((*PLACES, "--overflow", "ftp://me:s3cret@host"), "overflow: expected a directory or s3://BUCKET/PREFIX"),
        ((*PLACES, "--to", "file://"), "--to: expected an address such as"),
        (PLACES, "in: cannot be read: No such file or directory"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_2_and_says_what_was_expected(
    command: Any, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: tuple[Any, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, err = command(bundle, *flags, "--port", 0)
    assert code == 2
    assert err.startswith("fairlead: ")
    assert told in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "flags",
    [("--port", "99999"), ("--max-records", "0"), ("--start", "middle"), ("--guess",), ("a", "b")],
    ids=" ".join,
)
def test_a_wrong_flag_is_2_and_shows_how(command: Any, flags: tuple[str, ...]) -> None:
    code, err = command(*flags)
    assert code == 2
    assert "Usage: " in err


def test_what_cannot_be_written_or_is_no_bundle_is_2(
    command: Any, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "in").write_bytes(b"")
    (tmp_path / "out").mkdir()
    assert command(bundle, *PLACES, "--port", 0) == (
        2,
        f"fairlead: {tmp_path}/out: cannot be written to: Is a directory\n",
    )
    code, err = command(tmp_path / "nothing", *PLACES, "--port", 0)
    assert (code, err.count("\n")) == (2, 1)
    assert "nothing" in err
    code, err = command(*PLACES, "--port", 0)
    assert (code, err) == (2, "fairlead: expected a model to score with: got none\n")
    code, err = command(bundle, *PLACES, "--id", "price", "--to", "file://elsewhere", "--port", 0)
    assert (code, err.count("\n")) == (2, 1)
    assert "id: price is an output of the model too" in err


def test_a_port_that_is_taken_is_2(command: Any, bundle: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, err = command(bundle, *PLACES, "--port", port)
    assert (code, err) == (
        2,
        f"fairlead: port {port} on 127.0.0.1 is taken: stop what listens there, or give another with --port\n",
    )


def test_a_wrong_file_or_variable_is_told_where_it_stands(command: Any, bundle: Path, tmp_path: Path) -> None:
    config = configuration(
        tmp_path, {"price": {"source": str(bundle)}}, frm="kinesis://rides", to="redis://me:s3cret@h/x"
    )
    code, err = command("--config", config, FAIRLEAD_STREAM_GROOP="x", FAIRLEAD_STREAM_START="middle")
    assert code == 2
    assert "stream.frm: no such setting; did you mean" in err
    assert "stream.to: an address with a password has no place here" in err
    assert "FAIRLEAD_STREAM_GROOP: no such setting" in err
    assert "FAIRLEAD_STREAM_START: expected oldest or newest" in err


def test_a_password_is_in_no_line_of_a_process(bundle: Path, tmp_path: Path, free_port: int) -> None:
    """Nobody listens there: it waits for its output, and tells so."""
    (tmp_path / "in.jsonl").write_bytes(event(1) + b"\n")
    flags = {"--from": f"file://{tmp_path}/in.jsonl", "--to": f"redis://me:s3cret@127.0.0.1:{free_port}/answers"}
    with Streaming(tmp_path, bundle, flags=[part for pair in flags.items() for part in pair]) as one:
        eventually(lambda: "start: " in one.get("/readyz")[1])
        status, text = one.get("/readyz")
        assert status == 503
        assert f"redis://127.0.0.1:{free_port}/answers" in text
        assert one.end() == 0
        assert "s3cret" not in text + one.log() + one.out()
        assert "Traceback" not in one.log()
