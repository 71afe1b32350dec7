"""What all tests share: very little."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from tests.orphans import _leaves_no_process, _session_leaves_no_process
from tests.patient import PatientLoop

__all__ = ["_leaves_no_process", "_session_leaves_no_process"]

# No deadline for one example: two cores are shared with whatever else runs, and a slow example is not
# a wrong one (pytest-timeout ends a hanging test). The blob is the line that replays a failure.
settings.register_profile("house", deadline=None, print_blob=True)
settings.load_profile("house")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--rewrite-transcripts",
        action="store_true",
        help="write transcripts and golden bytes anew (consensus/transcript.py, protocol/test_golden.py)",
    )


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """Logging is configured for the whole process; a test that does so must not do so for the next."""
    yield
    structlog.reset_defaults()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, type[PatientLoop]]:
    """All asynchronous tests here run on a clock that other processes cannot hurry (see `patient`)."""
    return {"patient": PatientLoop}
