"""What every run of pytest here shares, tests and stories alike."""

from __future__ import annotations

import signal

import pytest


class _FailuresAtOnce:
    """Says which test fails when it does, not at the end: a run that is ended from outside has no end."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write_line(
                f"\n{report.nodeid} ({report.when}):\n{report.longreprtext}", red=True
            )


@pytest.hookimpl(trylast=True)  # behind the terminal's own
def pytest_configure(config: pytest.Config) -> None:
    terminal = config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(terminal, pytest.TerminalReporter):
        config.pluginmanager.register(_FailuresAtOnce(terminal), "failures-at-once")
    # A shell's job in the background starts with SIGINT ignored, and hands that on to every program that
    # it starts: the tests that interrupt one would wait for ever.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
