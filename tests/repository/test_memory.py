"""Who takes how much of a budget, told by what the process has."""

from __future__ import annotations

import numpy as np

from fairlead.repository.memory import Grown, Ledger, Seen, forget_peak, give_back, peak_bytes, resident_bytes

MB = 1_000_000


def test_memory_that_is_used_and_let_go_shows_and_goes_back() -> None:
    before = resident_bytes()
    # In pieces that are no mapping of their own, as a model's are: they come back only when asked for.
    kept = [np.ones(2_000) for _ in range(2_000)]
    grown = resident_bytes() - before
    assert 20 * MB < grown < 50 * MB  # what others let go may serve for some of it
    kept.clear()
    give_back()
    assert resident_bytes() - before < 8 * MB


def test_the_peak_is_of_the_time_since_it_was_forgotten() -> None:
    assert forget_peak()
    before = resident_bytes()
    np.ones(5_000_000).sum()
    assert 38 * MB < peak_bytes() - before < 60 * MB
    assert forget_peak()
    assert peak_bytes() - before < 20 * MB


def test_a_model_takes_what_the_process_grew_by() -> None:
    ledger = Ledger(100 * MB)
    assert ledger.used(500 * MB) == 0
    assert ledger.came("a", "digest a", 7 * MB, Grown(500 * MB, 530 * MB)) == 30 * MB
    assert ledger.used(530 * MB) == 30 * MB
    assert ledger.used(545 * MB) == 45 * MB, "requests need memory too"
    assert ledger.used(510 * MB) == 30 * MB, "memory that is swapped out will be wanted again"
    assert not ledger.lacks_room(530 * MB, Seen(1, 70 * MB, 10 * MB))
    assert ledger.lacks_room(530 * MB, Seen(1, 71 * MB, 0))
    assert ledger.lacks_room(530 * MB, Seen(1, 60 * MB, 21 * MB)), "a load may not pass it by much"


def test_what_a_model_will_take_is_guessed_from_itself_or_from_others() -> None:
    ledger = Ledger(100 * MB)
    assert ledger.expected("digest a", 10 * MB).size == 0
    ledger.came("a", "digest a", 10 * MB, Grown(500 * MB, 530 * MB, 540 * MB))
    assert ledger.expected("digest a", 10 * MB) == Seen(10 * MB, 30 * MB, 10 * MB)
    assert ledger.expected("digest b", 5 * MB) == Seen(5 * MB, 15 * MB, 5 * MB)
    assert ledger.went("a", "digest a", 534 * MB, 500 * MB) == 34 * MB
    assert ledger.expected("digest a", 10 * MB).size == 34 * MB, "it grew while it answered"


def test_libraries_that_a_model_brought_along_are_not_its_own() -> None:
    ledger = Ledger(100 * MB)
    ledger.came("a", "digest a", 10 * MB, Grown(500 * MB, 650 * MB, is_rough=True))
    assert ledger.lacks_room(650 * MB)
    ledger.went("a", "digest a", 650 * MB, 645 * MB)
    assert ledger.used(645 * MB) == 20 * MB, "of what stays without any model a part counts"
    assert ledger.expected("digest a", 10 * MB).size == 0
    assert ledger.came("a", "digest a", 10 * MB, Grown(645 * MB, 650 * MB)) == 5 * MB


def test_memory_that_an_allocator_keeps_is_found_again() -> None:
    ledger = Ledger(100 * MB)
    ledger.came("a", "digest a", 10 * MB, Grown(500 * MB, 550 * MB))
    ledger.went("a", "digest a", 550 * MB, 540 * MB)
    assert ledger.used(540 * MB) == 20 * MB
    assert ledger.came("a", "digest a", 10 * MB, Grown(540 * MB, 545 * MB)) == 45 * MB
    assert ledger.used(545 * MB) == 45 * MB
    assert ledger.came("b", "digest b", 10 * MB, Grown(545 * MB, 595 * MB)) == 50 * MB
    assert ledger.used(595 * MB) == 95 * MB
