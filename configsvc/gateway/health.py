"""/health, /livez and /readyz: what load balancers and probes ask (wire/behaviour.md 17).

A certificate is enough to ask; nothing here says anything about keys or values. A check that
needs a linearizable read is answered when the read is, and gives up with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

from configsvc.api.contract import HttpSink, Waiting
from configsvc.errors import ConfigServiceError, InvalidArgumentError
from configsvc.gateway.answers import TEXT_FIELDS, compact
from configsvc.limits import QUERY_FIELDS_MAX
from configsvc.runtime.member import Member

_ALARMS: Final = {1: "NOSPACE", 2: "CORRUPT"}
CORRUPT: Final = 2
NO_LEADER: Final = "RAFT NO LEADER"

# A check tells "" when all is well, else why not; a Waiting when only a read can tell.
Check = Callable[[], "str | Waiting"]
Told = Callable[[str], None]


class Probe:
    """A running check of a request, so that the client can leave."""

    streams = False

    def __init__(self) -> None:
        self.waiting: Waiting | None = None

    def on_cancel(self) -> None:
        """The client is gone."""
        if self.waiting is not None:
            self.waiting.cancel()

    def on_writable(self) -> None:
        """Answers are small."""


class _Run(Probe):
    """The checks of one request, one after the other."""

    def __init__(
        self, health: Health, group: str, names: list[str], sink: HttpSink, *, verbose: bool
    ) -> None:
        super().__init__()
        self._health = health
        self._group = group
        self._names = names
        self._sink = sink
        self._verbose = verbose
        self._lines: list[str] = []
        self._failed = False

    def proceed(self) -> None:
        """Run what is left, up to a check that has to be waited for."""
        while self._names:
            name = self._names.pop(0)
            outcome = self._health.groups[self._group][name]()
            if isinstance(outcome, Waiting):
                self._wait(name, outcome)
                return
            self._note(name, outcome)
        self._answer()

    def _wait(self, name: str, outcome: Waiting) -> None:
        def told(result: bytes | ConfigServiceError) -> None:
            self.waiting = None
            self._note(name, _why(result))
            self.proceed()

        self.waiting = outcome
        outcome.bind(told)

    def _note(self, name: str, why: str) -> None:
        self._health.note(self._group, name, why)
        self._failed = self._failed or bool(why)
        self._lines.append(f"[-]{name} failed: {why}\n" if why else f"[+]{name} ok\n")

    def _answer(self) -> None:
        shown = "".join(self._lines) if self._failed or self._verbose else ""
        body = shown if self._failed else f"{shown}ok\n"
        self._sink.respond(503 if self._failed else 200, TEXT_FIELDS, body.encode())


class Health:
    """The health paths of one member, and how often they succeeded."""

    def __init__(self, member: Member) -> None:
        self._member = member
        self.health = Counter[str]()  # "success", "failure"
        self.checks = Counter[tuple[str, str, str]]()  # (livez or readyz, check, outcome)
        self.last: dict[tuple[str, str], bool] = {}  # (livez or readyz, check) -> good
        serializable, linearizable = self._serializable_read, self._linearizable_read
        self.groups: dict[str, dict[str, Check]] = {
            "livez": {"serializable_read": serializable},
            "readyz": {
                "data_corruption": self._data_corruption,
                "local_audit": self._local_audit,
                "serializable_read": serializable,
                "linearizable_read": linearizable,
                "non_learner": self._non_learner,
            },
        }

    # --- /health ---------------------------------------------------------------------------------

    def health_answer(self, query: str, sink: HttpSink) -> Probe | None:
        """``{"health":"true"|"false","reason":…}``, 200 or 503."""
        asked = parse_query(query)
        reason = self._alarm(asked.get("exclude", []))
        local = asked.get("serializable", [""])[0] == "true"
        if not reason and not local and not self._member.lead:
            reason = NO_LEADER
        if reason or local:
            self._tell_health(sink, reason)
            return None
        return self._after(
            self._linearizable_read(),
            lambda why: self._tell_health(sink, f"RANGE ERROR:{why}" if why else ""),
        )

    def _alarm(self, excluded: list[str]) -> str:
        for _, alarm in self._member.alarms():
            name = _ALARMS.get(alarm, "UNKNOWN")
            if name not in excluded:
                return f"ALARM {name}"
        return self._member.audit.problem.upper()

    def _tell_health(self, sink: HttpSink, reason: str) -> None:
        self.health["failure" if reason else "success"] += 1
        body = compact({"health": "false" if reason else "true", "reason": reason})
        sink.respond(503 if reason else 200, TEXT_FIELDS, body)

    # --- /livez, /readyz -------------------------------------------------------------------------

    def group_answer(self, group: str, only: str, query: str, sink: HttpSink) -> Probe | None:
        """Run the checks of a group, or ``only`` one of them; "" means all."""
        asked = parse_query(query)
        excluded = asked.get("exclude", [])
        checks = self.groups[group]
        wanted = [only] if only else [name for name in checks if name not in excluded]
        run = _Run(self, group, wanted, sink, verbose="verbose" in asked)
        run.proceed()
        return run

    def note(self, group: str, name: str, why: str) -> None:
        """Count the outcome of one check; "" is success."""
        self.checks[group, name, "error" if why else "success"] += 1
        self.last[group, name] = not why

    # --- checks ----------------------------------------------------------------------------------

    def _serializable_read(self) -> str:
        return "server stopped" if self._member.stopping else ""

    def _linearizable_read(self) -> Waiting | str:
        try:
            return self._member.reads.submit(lambda: b"")
        except ConfigServiceError as error:
            return str(error)

    def _data_corruption(self) -> str:
        return "alarm activated: CORRUPT" if self._member.has_alarm(CORRUPT) else ""

    def _local_audit(self) -> str:
        return self._member.audit.problem

    def _non_learner(self) -> str:
        return "server is learner" if self._member.is_learner else ""

    def _after(self, outcome: Waiting | str, told: Told) -> Probe | None:
        if isinstance(outcome, str):
            told(outcome)
            return None
        probe = Probe()
        probe.waiting = outcome
        outcome.bind(lambda result: told(_why(result)))
        return probe


def parse_query(query: str) -> dict[str, list[str]]:
    """Fields of a query; a name without a value counts.

    Raises:
        InvalidArgumentError: more than QUERY_FIELDS_MAX of them.
    """
    try:
        return parse_qs(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise InvalidArgumentError("query: too many fields") from None


def _why(result: bytes | ConfigServiceError) -> str:
    return str(result) if isinstance(result, ConfigServiceError) else ""
