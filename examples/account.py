"""An aggregate with optimistic concurrency: a bank account that cannot be overdrawn.

The account is what its events say. A command loads it, decides, and appends what it decided at the
version that it has seen; if another writer was faster, it loads the account again and decides anew.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid
from collections.abc import Callable

from allsource.client import Client, Event, NewEvent, NotFound, WrongExpectedVersion

NODES = sys.argv[1:] or ["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]
SECRET = os.environ.get("ALLSOURCE_SECRET", "change-me-clients-of-three-nodes")


class Refused(Exception):
    """A rule of the account forbids it."""


class Account:
    """What the events add up to."""

    def __init__(self) -> None:
        self.balance = 0
        self.version = 0

    def apply(self, event: Event) -> None:
        amount = event.json()["amount"]
        self.balance += amount if event.type == "Deposited" else -amount
        self.version = event.version

    # Decisions: from what the account is, to the event that is to happen.

    def deposit(self, amount: int) -> NewEvent:
        return NewEvent.json("Deposited", {"amount": amount})

    def withdraw(self, amount: int) -> NewEvent:
        if amount > self.balance:
            raise Refused(f"{amount} are more than the {self.balance} that are left")
        return NewEvent.json("Withdrawn", {"amount": amount})


async def load(client: Client, name: str) -> Account:
    account = Account()
    try:
        async for event in client.stream(name):
            account.apply(event)
    except NotFound:
        pass  # an account without events
    return account


async def change(client: Client, name: str, decide: Callable[[Account], NewEvent]) -> None:
    """Carry out a decision. Raises `Refused`, and whatever else `decide` raises."""
    while True:
        account = await load(client, name)
        event = decide(account)
        try:
            await client.append(name, event, account.version)
            return
        except WrongExpectedVersion:
            continue


async def withdraw(client: Client, name: str, amount: int) -> str:
    try:
        await change(client, name, lambda account: account.withdraw(amount))
    except Refused as refusal:
        return f"refused: {refusal}"
    return f"{amount} withdrawn"


async def main() -> None:
    name = f"account-{uuid.uuid4()}"
    async with Client(NODES, secret=SECRET) as client:
        await change(client, name, lambda account: account.deposit(100))
        for outcome in sorted(await asyncio.gather(*[withdraw(client, name, 60) for _ in range(2)])):
            print(outcome)
        account = await load(client, name)
        print(f"balance {account.balance}, version {account.version}")


asyncio.run(main())
