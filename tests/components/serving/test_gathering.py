"""When a batch is closed, turn by turn of a loop in which requests arrive."""

from __future__ import annotations

import time

from components.serving.gathering import MOST_SECONDS, PATIENT_TURNS, QUIET_TURNS, TRIED_EVERY, Gathering


def batch(gathering, arrivals):
    """A batch's size, and its turns, where requests arrive at the given turns; the first is at turn 0."""
    gathering.begin()
    since, turn = time.monotonic() + 60, 0  # so that the clock has no say
    while True:
        queued = sum(arrival <= turn for arrival in arrivals)
        turn += 1
        if gathering.is_over(queued, since):
            return queued, turn


def after_first(gathering):
    batch(gathering, [0])  # one in `TRIED_EVERY`, the first included, waits long to see what comes
    return gathering


def test_one_that_is_alone_waits_two_turns():
    assert batch(after_first(Gathering()), [0]) == (1, QUIET_TURNS + 1)


def test_what_comes_turn_by_turn_is_one_batch():
    assert batch(after_first(Gathering()), [0, 1, 1, 2, 4, 5]) == (6, 5 + QUIET_TURNS + 1)


def test_a_gap_ends_a_batch():
    assert batch(after_first(Gathering()), [0, 1, 10, 11])[0] == 2


def test_late_ones_are_waited_for_where_that_fills_batches():
    gathering = Gathering()
    stream = range(0, 50, 5)
    assert [batch(gathering, stream)[0] for _ in range(3 * TRIED_EVERY)] == [len(stream)] * 3 * TRIED_EVERY


def test_late_ones_are_found_by_trying():
    gathering = Gathering()
    for _ in range(10):
        batch(gathering, [0])
    sizes = [batch(gathering, range(0, 50, 5))[0] for _ in range(2 * TRIED_EVERY)]
    assert sizes[0] == 1 and sizes[-TRIED_EVERY:] == [10] * TRIED_EVERY


def test_waiting_ends_when_nobody_comes_any_more():
    gathering = Gathering()
    for _ in range(10):
        batch(gathering, range(0, 50, 5))
    turns = [batch(gathering, [0])[1] for _ in range(TRIED_EVERY)]
    assert turns[0] == PATIENT_TURNS + 1
    assert turns.count(QUIET_TURNS + 1) > 0.8 * TRIED_EVERY


def test_two_clients_are_not_worth_a_wait():
    gathering = Gathering()
    turns = [batch(gathering, [0, 5])[1] for _ in range(TRIED_EVERY)]
    assert turns.count(QUIET_TURNS + 1) == TRIED_EVERY - 1


def test_a_batch_that_came_to_nothing_does_not_cut_the_next_one_short():
    gathering = after_first(Gathering())
    gathering.begin()
    assert not gathering.is_over(1, time.monotonic() + 60)  # and then its time is up, or it is full
    assert batch(gathering, [0]) == (1, QUIET_TURNS + 1)


def test_nobody_waits_longer_than_the_bound():
    gathering, since = Gathering(), time.monotonic()
    queued = 1
    while not gathering.is_over(queued, since):  # one comes with each turn
        queued += 1
    assert MOST_SECONDS <= time.monotonic() - since < MOST_SECONDS + 1
