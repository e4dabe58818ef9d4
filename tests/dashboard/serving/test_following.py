"""What is shown follows what is in the stores, and stays where that is broken."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from fairlead.dashboard.serving import following
from fairlead.dashboard.serving.following import Follower, FollowingThread, ProcessTrial
from fairlead.dashboard.serving.shelf import Shelf, bring_all, find
from little_boards import Trial, load, write_store
from load import eventually


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    write_store(tmp_path / "one.dash", "One")
    write_store(tmp_path / "two.dash", "Two")
    made = Shelf(load)
    bring_all(made, find([tmp_path]))
    return made


@pytest.fixture
def follower(shelf: Shelf, tmp_path: Path) -> Follower:
    return Follower([tmp_path], shelf, Trial)


def titles(shelf: Shelf) -> dict[str, str | None]:
    return {shown.name: shown.board.title if shown.board else None for shown in shelf.all()}


def turns(follower: Follower, count: int = 6) -> list[bool]:
    return [follower.turn() for _ in range(count)]


def test_nothing_changes_where_nothing_changed(follower: Follower, shelf: Shelf) -> None:
    before = shelf.all()
    assert not any(turns(follower))
    assert shelf.all() == before


def test_a_store_that_was_replaced_is_tried_and_shown(follower: Follower, shelf: Shelf, tmp_path: Path) -> None:
    other = shelf.get("two")
    write_store(tmp_path / "one.dash", "One, again")
    assert not follower.turn()
    assert titles(shelf)["one"] == "One"  # not before it was tried
    assert turns(follower).count(True) == 1
    assert titles(shelf) == {"one": "One, again", "two": "Two"}
    assert shelf.get("two") is other


def test_a_broken_store_leaves_what_is_shown_and_says_why(follower: Follower, shelf: Shelf, tmp_path: Path) -> None:
    write_store(tmp_path / "one.dash", "One", broken=True)
    assert turns(follower).count(True) == 1
    shown = shelf.get("one")
    assert shown is not None
    assert shown.board is not None
    assert shown.board.title == "One"
    assert "not what was built" in (shown.trouble or "")
    write_store(tmp_path / "one.dash", "One, mended")
    turns(follower)
    assert titles(shelf)["one"] == "One, mended"
    assert shelf.get("one").trouble is None


def test_a_store_that_was_broken_at_first_comes_when_it_is_mended(tmp_path: Path) -> None:
    write_store(tmp_path / "one.dash", "One")
    write_store(tmp_path / "two.dash", "Two", broken=True)
    shelf = Shelf(load)
    bring_all(shelf, find([tmp_path]))
    follower = Follower([tmp_path], shelf, Trial)
    assert not any(turns(follower))
    write_store(tmp_path / "two.dash", "Two")
    turns(follower)
    assert titles(shelf) == {"one": "One", "two": "Two"}


def test_a_store_that_is_taken_away_stays_up_where_it_was_named(tmp_path: Path) -> None:
    store = write_store(tmp_path / "one.dash", "One")
    shelf = Shelf(load)
    bring_all(shelf, find([store]))
    follower = Follower([store], shelf, Trial)
    store.rename(tmp_path / "aside")
    assert turns(follower).count(True) == 1
    shown = shelf.get("one")
    assert shown is not None
    assert shown.board is not None
    assert "no dashboard store here any more" in (shown.trouble or "")
    (tmp_path / "aside").rename(store)
    turns(follower)
    assert shelf.get("one").trouble is None


def test_stores_come_and_go_in_a_folder(follower: Follower, shelf: Shelf, tmp_path: Path) -> None:
    write_store(tmp_path / "three.dash", "Three")
    (tmp_path / "two.dash").rename(tmp_path / "aside")
    turns(follower)
    assert titles(shelf) == {"one": "One", "three": "Three"}


def test_two_of_one_name_change_nothing(shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    more = tmp_path / "more"
    more.mkdir()
    follower = Follower([tmp_path, more], shelf, Trial)
    write_store(more / "one.dash", "Other")
    assert not any(turns(follower))
    assert titles(shelf) == {"one": "One", "two": "Two"}


def test_a_store_replaced_while_it_is_tried_is_tried_again(follower: Follower, shelf: Shelf, tmp_path: Path) -> None:
    write_store(tmp_path / "one.dash", "One, broken", broken=True)
    follower.turn()
    write_store(tmp_path / "one.dash", "One, third")
    turns(follower)
    assert titles(shelf)["one"] == "One, third"
    assert shelf.get("one").trouble is None


def test_all_are_loaded_again_when_told_so(follower: Follower, shelf: Shelf) -> None:
    before = {shown.name: shown.board for shown in shelf.all()}
    follower.hurry()
    turns(follower, 10)
    for shown in shelf.all():
        assert shown.board is not before[shown.name]


def n_following() -> int:
    return [one.name for one in threading.enumerate()].count("fairlead-following")


def test_a_thread_follows_in_each_process(
    shelf: Shelf, follower: Follower, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "LOOK_S", 0.02)
    before = n_following()  # of other tests
    thread = FollowingThread(follower)
    thread.ensure()
    thread.ensure()
    assert n_following() == before + 1
    write_store(tmp_path / "one.dash", "One, again")
    eventually(lambda: titles(shelf).get("one") == "One, again", 60)  # gone while it is written
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a process forked from this one
    thread.ensure()
    assert n_following() == before + 2


def test_a_process_tries_what_is_no_store(tmp_path: Path) -> None:
    trial = ProcessTrial(write_store(tmp_path / "one.dash", "One"))
    until = time.monotonic() + 60
    while not (result := trial.result())[0] and time.monotonic() < until:
        time.sleep(0.05)
    assert result[0]
    assert "one.dash" in (result[1] or "")


def test_a_process_that_is_killed_is_a_reason(tmp_path: Path) -> None:
    trial = ProcessTrial(write_store(tmp_path / "one.dash", "One"))
    trial._process.kill()
    until = time.monotonic() + 20
    while not (result := trial.result())[0] and time.monotonic() < until:
        time.sleep(0.01)
    assert "killed, or crashed" in (result[1] or "")


def test_a_store_that_is_still_copied_is_shown_once_it_is_whole(
    follower: Follower, shelf: Shelf, tmp_path: Path
) -> None:
    """As by ``cp -r``, which may bring the manifest first."""
    store = write_store(tmp_path / "one.dash", "One, again", needs="explainer.pickle")
    turns(follower)
    assert "explainer.pickle is missing" in (shelf.get("one").trouble or "")
    (store / "explainer.pickle").touch()
    turns(follower)
    assert titles(shelf)["one"] == "One, again"
    assert shelf.get("one").trouble is None


def test_being_told_all_the_time_to_load_again_does_not_keep_it_from_that(follower: Follower, shelf: Shelf) -> None:
    before = shelf.get("one").board
    for _ in range(10):
        follower.hurry()
        follower.turn()
    assert shelf.get("one").board is not before


def test_what_the_system_refuses_is_tried_again(shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    refusals = [BlockingIOError(11, "Resource temporarily unavailable")] * 3

    def begin(path: Path) -> Trial:
        if refusals:
            raise refusals.pop()
        return Trial(path)

    follower = Follower([tmp_path], shelf, begin)
    write_store(tmp_path / "one.dash", "One, again")
    turns(follower)
    assert titles(shelf)["one"] == "One, again"
    assert caplog.text.count("Resource temporarily unavailable") == 1
