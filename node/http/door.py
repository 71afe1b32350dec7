"""What the connections of one HTTP door share."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from allsource.node.http.complaints import Complaints, aiohttp_logger

if TYPE_CHECKING:
    from allsource.node.http.connection import HttpConnection


class Door:
    """The open connections of a door, and its voice."""

    def __init__(self, complaints: Complaints) -> None:
        self.complaints = complaints
        self.logger: logging.Logger = aiohttp_logger(complaints)
        self.connections: set[HttpConnection] = set()
