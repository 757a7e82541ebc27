"""configsvc.v1.Fleet: what is applied where. Each member's memory only: no key, no log entry."""

from __future__ import annotations

from typing import Any, Final

from configsvc.api.contract import Caller
from configsvc.api.service import Service
from configsvc.codec import requests
from configsvc.errors import InvalidArgumentError, PermissionDeniedError
from configsvc.fleet.table import FileState, FleetTable, NodeReport, SetState, Took
from configsvc.limits import FLEET_SETS_MAX
from configsvc.proto import v1_pb2
from configsvc.runtime.member import Member
from configsvc.types import KIND_AGENT

HEARTBEAT_MS: Final = 10_000
TTL_NS: Final = 3 * HEARTBEAT_MS * 1_000_000


class FleetService(Service):
    """Handlers of Fleet."""

    def __init__(self, member: Member) -> None:
        super().__init__(member)
        self.table = FleetTable(TTL_NS)

    def report(self, caller: Caller, raw: bytes) -> bytes:
        """An agent reports for itself, and for nobody else (AGT-7)."""
        m = requests.parse(v1_pb2.ReportRequest, raw)
        self.need(caller, "fleet.report")
        principal = caller.principal
        if principal.kind != KIND_AGENT or m.node != principal.name:
            raise PermissionDeniedError
        if len(m.sets) > FLEET_SETS_MAX:
            raise InvalidArgumentError(f"sets: at most {FLEET_SETS_MAX}")
        self.table.report(
            NodeReport(
                m.node,
                m.start_counter,
                m.seq,
                m.agent_version[:64],
                m.link,
                m.certificate_expires_ns,
                tuple(_set_state(s) for s in m.sets),
                self.member.time_ns(),
                m.trust_bundle,
            )
        )
        return self.header() + v1_pb2.ReportResponse(heartbeat_ms=HEARTBEAT_MS).SerializeToString()

    def status(self, caller: Caller, raw: bytes) -> bytes:
        """What this member's agents told it."""
        m = requests.parse(v1_pb2.FleetStatusRequest, raw)
        self.need(caller, "fleet.read")
        now = self.member.time_ns()
        out = v1_pb2.FleetStatusResponse(as_of_ns=now)
        for report in self.table.status(now, node=m.node, set_name=m.set, behind=m.behind):
            out.nodes.append(self._node(report))
        return self.header() + out.SerializeToString()

    def _node(self, report: NodeReport) -> v1_pb2.NodeStatus:
        out = v1_pb2.NodeStatus(
            node=report.node,
            link=report.link,
            agent_version=report.agent_version,
            reported_ns=report.heard_ns,
            certificate_expires_ns=report.certificate_expires_ns,
            member=self.member.self_id,
            start_counter=report.start_counter,
            seq=report.seq,
            trust_bundle=report.trust_bundle,
        )
        for state in report.sets:
            item = out.sets.add(
                name=state.name,
                target_revision=state.target_revision,
                content_revision=state.content_revision,
                generation=state.generation,
                outcome=state.outcome,
                reason=state.reason,
                attempts=state.attempts,
                changed_ns=state.changed_ns,
                lag_ms=state.lag_ms,
                root=state.root,
                durations=v1_pb2.Durations(**state.took._asdict()),
            )
            for file in state.files:
                item.files.add(
                    path=file.path, sha256=file.sha256, outcome=file.outcome, reason=file.reason
                )
        return out


def _set_state(s: Any) -> SetState:
    files = tuple(FileState(f.path, f.sha256, f.outcome, f.reason) for f in s.files)
    return SetState(
        s.name,
        s.target_revision,
        s.content_revision,
        s.generation,
        s.outcome,
        s.reason,
        s.attempts,
        s.changed_ns,
        s.lag_ms,
        files,
        s.root,
        Took(*(getattr(s.durations, name) for name in Took._fields)),
    )
