"""Events for benchmarks as applications write them: several shapes of JSON, each with its own entropy.

Padding would flatter whatever compresses. So the values are drawn at random: names and words from lists,
as people's are, amounts and times as numbers, references as random digits. No two of the bodies are the
same, and a chunk never holds one twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from allsource.storage.model.events import NewEvent

BODIES = 8192
"""Different events; they come in turn."""

_CITIES = ("Berlin", "Lyon", "Porto", "Gdańsk", "Malmö", "Leeds", "Turin", "Graz", "Utrecht", "Ghent")
_STREETS = ("Main", "Station", "Church", "Mill", "School", "Park", "Bridge", "Market", "Garden", "Hill")
_NAMES = ("Anna", "Jonas", "Marie", "Piotr", "Elif", "Lars", "Chiara", "Noah", "Ines", "Yusuf", "Greta")
_GOODS = ("kettle", "lamp", "bicycle bell", "notebook", "umbrella", "tea pot", "rain coat", "desk chair")
_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def _moment(random: Random) -> str:
    return (_BEGIN + timedelta(milliseconds=random.randrange(300 * 86_400_000))).isoformat()


def _uuid(random: Random) -> str:
    return str(UUID(int=random.getrandbits(128), version=4))


def _order(random: Random) -> dict[str, Any]:
    items = [
        {
            "sku": f"{random.randrange(10**7):07d}",
            "name": random.choice(_GOODS),
            "quantity": random.randint(1, 4),
            "price": random.randrange(199, 49_999) / 100,
        }
        for _ in range(random.randint(1, 3))
    ]
    return {"customer": _uuid(random), "placedAt": _moment(random), "currency": "EUR", "items": items}


def _payment(random: Random) -> dict[str, Any]:
    return {
        "paymentId": _uuid(random),
        "amount": {"value": random.randrange(199, 99_999), "currency": "EUR"},
        "card": {"last4": f"{random.randrange(10_000):04d}", "brand": random.choice(("visa", "maestro"))},
        "authorization": f"{random.getrandbits(48):012x}",
        "at": _moment(random),
    }


def _address(random: Random) -> dict[str, Any]:
    return {
        "name": f"{random.choice(_NAMES)} {random.choice(_NAMES)}son",
        "street": f"{random.choice(_STREETS)} Street {random.randint(1, 180)}",
        "city": random.choice(_CITIES),
        "zip": f"{random.randrange(100_000):05d}",
        "reason": random.choice(("moved", "corrected", "delivery only")),
        "changedBy": _uuid(random),
    }


def _reading(random: Random) -> dict[str, Any]:
    return {
        "sensor": f"boiler-{random.randrange(500)}",
        "temperature": round(random.gauss(61, 9), 2),
        "pressure": round(random.gauss(1.8, 0.3), 3),
        "flow": round(random.gauss(12, 2), 3),
        "at": _moment(random),
    }


def _moved(random: Random) -> dict[str, Any]:
    return {"account": _uuid(random), "amount": random.randrange(1, 500_000), "to": _uuid(random)}


_SHAPES: dict[str, Callable[[Random], dict[str, Any]]] = {
    "OrderPlaced": _order,
    "PaymentAuthorized": _payment,
    "AddressChanged": _address,
    "ReadingTaken": _reading,
    "MoneyMoved": _moved,
}


class Events:
    """The events of a run, one after the other; the same for the same seed, but for their ids."""

    def __init__(self, seed: int = 1, bodies: int = BODIES) -> None:
        random = Random(seed)
        kinds = list(_SHAPES)
        self._bodies = [
            (kind, json.dumps(_SHAPES[kind](random), separators=(",", ":"), ensure_ascii=False).encode())
            for kind in (random.choice(kinds) for _ in range(bodies))
        ]
        self._at = 0

    @property
    def average_bytes(self) -> int:
        """Of an event's data."""
        return sum(len(data) for _, data in self._bodies) // len(self._bodies)

    def next(self) -> NewEvent:
        """A new event."""
        at = self._at
        self._at = at + 1 if at + 1 < len(self._bodies) else 0
        kind, data = self._bodies[at]
        return NewEvent(kind, data)

    def some(self, count: int) -> list[NewEvent]:
        """Several."""
        return [self.next() for _ in range(count)]
