"""What keeps connections open: how it lets go of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from allsource.client.connection import NodeConnection
from allsource.client.dialler import Dialler
from allsource.cluster.protocol.handshake import DiallerConfig
from allsource.cluster.sockets import dialling
from tests.client.fake_node import SECRET
from tests.waiting import until


class Nobody:
    """A listener that is told nothing."""


async def test_closing_does_not_wait_for_a_connection_that_was_made_in_vain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uvloop does not tell a connection of its end if its dialling is cancelled as it is made."""
    made: list[NodeConnection] = []

    async def connect(_loop: Any, make: Callable[[], NodeConnection], *_: Any) -> None:
        connection = make()
        connection._life.opened(connection)
        made.append(connection)
        await asyncio.Event().wait()

    monkeypatch.setattr(dialling, "connect", connect)
    dialler = Dialler(DiallerConfig.client(SECRET), Nobody(), lambda: None)  # type: ignore[arg-type]
    dialler.dial([("127.0.0.1", 1)])
    await until(lambda: made)
    async with asyncio.timeout(30):
        await dialler.close()
    assert made[0].closing
    assert dialler.failures == {}
