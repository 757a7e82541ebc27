"""Prometheus text, under etcd's names where the meaning is the same. Label sets are closed.

Everything is read from counters that exist anyway when a scrape comes; nothing is counted twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from configsvc.api.call_counts import OK
from configsvc.api.status import GO_NAMES
from configsvc.api.table import Api
from configsvc.api.traffic import ClientTraffic
from configsvc.gateway.health import Health
from configsvc.limits import QUOTA_BYTES_DEFAULT
from configsvc.runtime.member import Member
from configsvc.runtime.scrubbing import Scrubber
from configsvc.runtime.watchdog import Watchdog
from configsvc.transport.ports import PeerBytes
from configsvc.types import NodeId

_TYPES: Final = {
    (False, False): "unary",
    (True, False): "client_stream",
    (False, True): "server_stream",
    (True, True): "bidi_stream",
}


class Traffic(NamedTuple):
    """Bytes on the wire and stalls of the loop, counted by whoever owns these."""

    clients: ClientTraffic = ClientTraffic()
    peers: Mapping[NodeId, PeerBytes] = MappingProxyType({})
    watchdog: Watchdog | None = None  # None: nobody watches the loop
    scrubber: Scrubber | None = None  # None: nobody reads stored data again


class Metrics(Collector):
    """All families of one member, in a fixed order."""

    def __init__(
        self,
        member: Member,
        api: Api,
        health: Health,
        refused: Mapping[str, int],
        traffic: Traffic,
    ) -> None:
        self._member = member
        self._api = api
        self._health = health
        self._refused = refused
        self._traffic = traffic
        self._process = ProcessCollector(registry=None)
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def exposition(self) -> bytes:
        """The text a scrape gets."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Called by the registry."""
        yield from self._server()
        yield from self._reads_and_writes()
        yield from self._store()
        yield from self._loop()
        yield from self._stored()
        yield from self._operations()
        yield from self._leases_and_rights()
        yield from self._disk()
        yield from self._healthchecks()
        yield from self._calls()
        yield self._requests()
        yield from self._network()
        yield self._peers_refused()
        yield from self._process.collect()

    def _server(self) -> Iterator[Metric]:
        m = self._member
        yield gauge("etcd_server_has_leader", "Whether a leader is known", bool(m.lead))
        yield gauge("etcd_server_is_leader", "Whether this member leads", m.is_leader)
        yield gauge("etcd_server_is_learner", "Whether this member is a learner", m.is_learner)
        seen = m.elections.leaders_seen
        yield counter("etcd_server_leader_changes_seen", "Changes of the leader", seen)
        yield labelled("etcd_server_id", "Member id", server_id=f"{m.self_id:x}")
        version = m.config.advertised_etcd_version
        yield labelled("etcd_server_version", "Advertised version", server_version=version)
        minor = ".".join(version.split(".")[:2])
        yield labelled("etcd_cluster_version", "Cluster version", cluster_version=minor)
        quota = m.config.quota_backend_bytes or QUOTA_BYTES_DEFAULT
        yield gauge("etcd_server_quota_backend_bytes", "Quota; 0 without one", max(quota, 0))
        insecure = m.config.insecure_dev
        yield gauge("configsvc_insecure", "Born under --insecure-dev", insecure)

    def _reads_and_writes(self) -> Iterator[Metric]:
        m = self._member
        yield gauge("etcd_server_proposals_committed_total", "Entries committed", m.committed)
        yield gauge("etcd_server_proposals_applied_total", "Entries applied", m.applied)
        yield gauge("etcd_server_proposals_pending", "Writes that wait", m.proposals.waiting)
        failed = m.proposals.failed_total
        yield counter("etcd_server_proposals_failed", "Writes that failed", failed)
        yield counter("etcd_server_slow_read_indexes", "Slow read rounds", m.reads.slow_total)
        yield counter("etcd_server_read_indexes_failed", "Failed reads", m.reads.failed_total)

    def _store(self) -> Iterator[Metric]:
        m = self._member
        store, hub = m.store, m.hub
        size = store.db_bytes
        yield gauge("etcd_mvcc_db_total_size_in_bytes", "Key space with its window", size)
        yield gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "The same", size)
        yield gauge("etcd_debugging_mvcc_keys_total", "Live keys", store.key_count)
        yield gauge("etcd_debugging_mvcc_current_revision", "Revision", store.revision)
        floor = store.compact_revision
        yield gauge("etcd_debugging_mvcc_compact_revision", "KV floor", floor)
        yield gauge("etcd_debugging_mvcc_watcher_total", "Watchers", len(hub))
        yield gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers behind", hub.behind)
        yield gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams", hub.streams)
        yield counter("etcd_debugging_mvcc_events", "Events sent", hub.events_total)
        lag = m.history.lag()
        yield gauge("configsvc_history_lag_entries", "Applied entries not in SQL", lag.entries)
        stalls = m.housekeeping.stalls_total
        ahead = m.cluster_health.clock_ahead_ns / 1e9
        yield gauge("configsvc_clock_ahead_seconds", "Of the median, if too far; else 0", ahead)
        yield counter("configsvc_stalls", "Times that the process stood still", stalls)

    def _loop(self) -> Iterator[Metric]:
        """Counters only: while the loop is stalled it answers no scrape (H1)."""
        dog = self._traffic.watchdog
        if dog is not None:
            silent, stalled = dog.stalls_total, dog.stalled_total
            yield counter("configsvc_loop_silent", "Silences of 100 ms and more", silent)
            yield counter("configsvc_loop_stalled", "Those of half an election timeout", stalled)

    def _stored(self) -> Iterator[Metric]:
        scrubber = self._traffic.scrubber
        if scrubber is not None:
            passes, bad = scrubber.passes_total, scrubber.bad_total
            yield counter("configsvc_scrub_passes", "Passes over all stored data", passes)
            yield counter("configsvc_scrub_damaged", "What they found damaged", bad)

    def _operations(self) -> Iterator[Metric]:
        """Of this member's store; a put of the cluster counts at each of its members."""
        store = self._member.store
        tally = store.tally
        yield counter("etcd_mvcc_put", "Puts applied", tally.puts(store.revision))
        yield counter("etcd_mvcc_delete", "Deletes applied", tally.deletes)
        yield counter("etcd_mvcc_range", "Ranges answered here", tally.ranges)
        yield counter("etcd_mvcc_txn", "Transactions of several operations", tally.txns)

    def _network(self) -> Iterator[Metric]:
        clients = self._traffic.clients
        yield counter("etcd_network_client_grpc_sent_bytes", "To clients by HTTP/2", clients.sent)
        yield counter(
            "etcd_network_client_grpc_received_bytes", "From clients by HTTP/2", clients.received
        )
        sent = CounterMetricFamily("etcd_network_peer_sent_bytes", "To peers", labels=["To"])
        received = CounterMetricFamily(
            "etcd_network_peer_received_bytes", "From peers", labels=["From"]
        )
        for peer, count in sorted(self._traffic.peers.items()):
            sent.add_metric([f"{peer:x}"], count.sent)
            received.add_metric([f"{peer:x}"], count.received)
        yield sent
        yield received

    def _leases_and_rights(self) -> Iterator[Metric]:
        m = self._member
        expired, renewed = m.leases.expired_total, m.leases.renewed_total
        yield counter("etcd_debugging_server_lease_expired", "Leases expired", expired)
        yield counter("etcd_debugging_lease_renewed", "Renewals", renewed)
        yield gauge("configsvc_leases", "Leases granted and alive", len(m.state.lessor.leases))
        yield gauge("etcd_debugging_auth_revision", "Auth revision", m.state.auth.revision)

    def _disk(self) -> Iterator[Metric]:
        wal = self._member.wal
        yield summed(
            "etcd_disk_wal_fsync_duration_seconds",
            "Write and sync of one log frame; count and sum only",
            wal.frames_total,
            wal.sync_seconds_total,
        )
        yield counter("etcd_disk_wal_write_bytes", "Bytes written to the log", wal.bytes_total)

    def _healthchecks(self) -> Iterator[Metric]:
        health = self._health
        yield gauge("etcd_server_health_success", "Good /health", health.health["success"])
        yield gauge("etcd_server_health_failures", "Failed /health", health.health["failure"])
        last = GaugeMetricFamily(
            "etcd_server_healthcheck", "Outcome of the last run", labels=["type", "name"]
        )
        for (group, name), good in sorted(health.last.items()):
            last.add_metric([group, name], good)
        yield last
        total = CounterMetricFamily(
            "etcd_server_healthchecks", "Checks run", labels=["type", "name", "status"]
        )
        for (group, name, outcome), count in sorted(health.checks.items()):
            total.add_metric([group, name, outcome], count)
        yield total

    def _calls(self) -> Iterator[Metric]:
        """Of an outcome that never was there is no line, but for OK: a scrape stays short."""
        labels = ["grpc_type", "grpc_service", "grpc_method"]
        started, handled, received, sent = (
            CounterMetricFamily(f"grpc_server_{name}", f"{text}, JSON ones included", labels=more)
            for name, text, more in (
                ("started", "Calls started", labels),
                ("handled", "Calls ended, by code", [*labels, "grpc_code"]),
                ("msg_received", "Messages of clients", labels),
                ("msg_sent", "Messages to clients", labels),
            )
        )
        for method in self._api.methods.values():
            _, service, name = method.path.split("/")
            row = [_TYPES[method.client_stream, method.server_stream], service, name]
            counts = method.counts
            unary = method.unary is not None
            started.add_metric(row, counts.started)
            received.add_metric(row, counts.started if unary else counts.received)
            sent.add_metric(row, counts.handled[OK] if unary else counts.sent)
            for code, count in enumerate(counts.handled):
                if count or code == OK:
                    handled.add_metric([*row, GO_NAMES[code]], count)
        yield from (started, handled, received, sent)

    def _requests(self) -> Metric:
        """By type only: what clients call their version stays out of the labels."""
        family = CounterMetricFamily(
            "etcd_server_client_requests",
            "Requests by type, JSON ones included",
            labels=["type", "client_api_version"],
        )
        total = {"unary": 0, "stream": 0}
        for method in self._api.methods.values():
            kind = "unary" if method.unary is not None else "stream"
            total[kind] += method.counts.started
        for kind, count in total.items():
            family.add_metric([kind, "unknown"], count)
        return family

    def _peers_refused(self) -> Metric:
        family = CounterMetricFamily(
            "configsvc_peers_refused", "Client connections cut off, by kind", labels=["kind"]
        )
        for kind, count in sorted(self._refused.items()):
            family.add_metric([kind], count)
        return family


def labelled(name: str, text: str, **labels: str) -> Metric:
    """A gauge that says 1 beside its labels."""
    family = GaugeMetricFamily(name, text, labels=list(labels))
    family.add_metric(list(labels.values()), 1)
    return family


def summed(name: str, text: str, count: float, total: float) -> Metric:
    """A histogram of which only count and sum are known."""
    family = HistogramMetricFamily(name, text)
    family.add_metric([], [("+Inf", float(count))], total)
    return family


def gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], float(value))
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """``name`` without ``_total``: the library adds it."""
    family = CounterMetricFamily(name, text)
    family.add_metric([], float(value))
    return family
