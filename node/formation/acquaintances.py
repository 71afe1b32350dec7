"""What this node remembers for its handshakes, and what it does when a peer takes it for an older copy.

`Formation` keeps it durably; consensus knows what peers acknowledged. A start that is new is compared with
the latter, then written down, and only then counts: nothing of that peer has been acted on before. Where
something cannot be written down, the process ends (RULES.md rule 16), and so it does when a peer that
has proved who it is shows that our own data directory is an older copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from structlog.typing import FilteringBoundLogger

from allsource.cluster.protocol.acquaintance import REGRESSED, LogEnd, Start, lost_acknowledgement, outpaced
from allsource.cluster.protocol.frames import ProtocolError
from allsource.node.formation.formation import Formation
from allsource.node.member.ending import EXIT_STORAGE, EXIT_SYNC_FAILED, end_process
from allsource.storage.model.errors import DiskFull


class Acquaintances:
    """See the module's page. It is the `Memory` of `cluster.protocol.acquaintance`."""

    def __init__(
        self,
        formation: Formation,
        log: FilteringBoundLogger,
        *,
        log_ends: Callable[[], Sequence[LogEnd]],
        acknowledged_by: Callable[[str], Sequence[LogEnd]],
        takes_part: Callable[[], bool],
    ) -> None:
        """`log_ends`: how far our logs went when this process started. `acknowledged_by`: what a peer's
        replica acknowledged to this node as a leader. `takes_part`: whether this node is a member, which
        could break a promise."""
        self._formation = formation
        self._log = log
        self._acknowledged_by = acknowledged_by
        self._takes_part = takes_part
        self.log_ends = log_ends
        self.nonce_of = formation.nonce_of
        self.remembered: Callable[[], Mapping[str, Start]] = formation.remembered

    def meet(
        self, peer: str, start: Start, log_ends: Sequence[LogEnd], asked: Start | None
    ) -> ProtocolError | None:
        """See `Memory.meet`."""
        remembered = self._formation.remembered().get(peer)
        if start == remembered:
            return None
        refusal = outpaced(peer, start, asked, remembered) or lost_acknowledgement(
            peer, self._acknowledged_by(peer), log_ends
        )
        if refusal is not None:
            return refusal
        try:
            self._formation.remember(peer, start)
        except DiskFull as full:
            return ProtocolError("disk_full", f"a new start cannot be written down now: {full.message}")
        except Exception as error:
            self._not_written_down(error)
            raise
        return None

    def greeted(self, peer: str) -> bool:
        """Our own connections to a peer were accepted. True if this node may take part from now on."""
        try:
            return self._formation.greeted(peer)
        except Exception as error:
            self._not_written_down(error)
            raise

    def refused_by(self, peer: str, error: ProtocolError) -> None:
        """A peer that has proved who it is will not have us."""
        if error.code != REGRESSED:
            return
        try:
            self._formation.doubt(peer, error.message)
        except Exception as failure:
            self._not_written_down(failure)
            raise
        if self._takes_part():
            end_process(EXIT_STORAGE, lambda: self._say_why(peer, error.message))

    def _say_why(self, peer: str, reason: str) -> None:
        self._log.critical(
            "a peer shows that this data directory is an older copy; this process ends at once, before it "
            "breaks a promise that the copy has forgotten",
            peer=peer,
            reason=reason,
        )

    def _not_written_down(self, error: BaseException) -> None:
        end_process(EXIT_SYNC_FAILED, lambda: self._say_what_failed(error))

    def _say_what_failed(self, error: BaseException) -> None:
        self._log.critical(
            "what was learned of a peer could not be stored; this process ends at once. Check the disk, "
            "then start the node again",
            error=repr(error),
        )
