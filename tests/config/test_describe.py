"""The settings in force, as text."""

from __future__ import annotations

import pytest

from allsource.config.describe import describe
from tests.config.conftest import Faults, Load

EVERYTHING = """\
cluster_id: 6b3f0f6e-3c0e-5d0a-9a53-0d2f6d1f2f11
heartbeat_interval: 1500ms
suspicion_timeout: 3s
durability: os
limits: {event_bytes_max: 2000, disk_free_bytes_min: 0}
log: {format: json, level: error}
"""


@pytest.mark.parametrize(
    "text", ["", EVERYTHING, "storage: {backend: postgres, dsn: 'postgresql://{it:or-not}@db/x'}\n"]
)
def test_what_is_described_can_be_loaded(load: Load, text: str) -> None:
    settings = load(text)
    shown = describe(settings)
    unmasked = (
        shown.replace("client_secret: '***'", f"client_secret: {settings.client_secret}")
        .replace("secret: '***'", "secret: correct horse")
        .replace("dsn: '***'", f"dsn: '{settings.storage.dsn}'")
    )
    assert load(unmasked, whole=True) == settings


def test_secrets_are_masked_and_the_mask_is_no_secret(load: Load, faults: Faults) -> None:
    shown = describe(load("storage: {backend: postgres, dsn: 'postgresql://me:hunter2@db/x'}\n"))
    assert "hunter2" not in shown
    assert "correct horse" not in shown
    assert [fault.key for fault in faults(shown, whole=True)] == ["secret", "client_secret", "storage.dsn"]


def test_defaults_are_shown_as_people_write_them(load: Load) -> None:
    shown = describe(load())
    for line in (
        "partitions: 32",
        "suspicion_timeout: 500ms",
        "  event_bytes_max: 1MiB",
        "  background_jobs: 2",
    ):
        assert line in shown.splitlines()
    assert "dsn" not in shown
