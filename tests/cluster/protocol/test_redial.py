"""When an address is dialled again: the decision, without a clock or a socket."""

from __future__ import annotations

import pytest

from allsource.cluster.protocol.frames import ProtocolError
from allsource.cluster.protocol.redial import LONGEST_S, STEADY_AFTER_S, Redial, backoff_s, is_refusal

REFUSED = ProtocolError("wrong_secret", "another key")


def waits(redial: Redial, count: int) -> list[float]:
    return [redial.next_wait_s(1.0) for _ in range(count)]


def test_it_waits_twice_as_long_each_time() -> None:
    assert waits(Redial(), 9) == pytest.approx([0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.5, 0.5])
    assert backoff_s(100, 1.0, 0.25) == 0.25


def test_chance_takes_up_to_half_of_it() -> None:
    assert (backoff_s(3, 0.0, 9), backoff_s(3, 1.0, 9)) == pytest.approx((0.02, 0.04))


def test_who_refused_is_left_alone() -> None:
    redial = Redial()
    redial.failed(REFUSED)
    assert redial.next_wait_s(1.0) == LONGEST_S
    redial.begin_anew()
    assert redial.next_wait_s(1.0) == 0


def test_a_lost_connection_is_dialled_at_once_unless_it_ended_soon_or_for_a_reason() -> None:
    redial = Redial()
    redial.lost(STEADY_AFTER_S, None)
    assert redial.next_wait_s(1.0) == 0
    redial.lost(STEADY_AFTER_S / 2, ConnectionResetError())
    assert redial.next_wait_s(1.0) == pytest.approx(0.01)
    redial.lost(STEADY_AFTER_S, ProtocolError("idle", "connect again", by_peer=True))
    assert redial.next_wait_s(1.0) == LONGEST_S


def test_an_attempt_that_took_its_time_is_followed_soon() -> None:
    redial = Redial()
    waits(redial, 5)
    redial.failed(TimeoutError())
    assert redial.next_wait_s(1.0, at_once=True) == pytest.approx(0.01)


def test_what_a_refusal_is() -> None:
    assert is_refusal(REFUSED)
    assert not is_refusal(ProtocolError("timeout", "no handshake"))
    assert not is_refusal(ConnectionRefusedError())
    assert not is_refusal(None)
