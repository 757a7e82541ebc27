"""Prometheus text, under etcd's names where the meaning is the same. Label sets are closed."""

from __future__ import annotations

import resource
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from configsvc.runtime.member import Member


class MemberCollector(Collector):
    """Reads the member's own counters when it is scraped; nothing is counted twice."""

    def __init__(self, member: Member) -> None:
        self._member = member

    def collect(self) -> Iterator[Metric]:
        """All families, in a fixed order."""
        yield from self._server()
        yield from self._store()
        yield from self._process()

    def _server(self) -> Iterator[Metric]:
        m = self._member
        yield gauge("etcd_server_has_leader", "Whether a leader is known", bool(m.lead))
        yield gauge("etcd_server_is_leader", "Whether this member leads", m.is_leader)
        yield counter("etcd_server_proposals_committed", "Entries committed", m.committed)
        yield counter("etcd_server_proposals_applied", "Entries applied", m.applied)
        yield gauge("etcd_server_proposals_pending", "Writes that wait", m.proposals.waiting)
        yield counter(
            "etcd_server_proposals_failed", "Writes that failed", m.proposals.failed_total
        )
        yield counter("etcd_server_slow_read_indexes", "Slow read rounds", m.reads.slow_total)
        yield counter("etcd_server_read_indexes_failed", "Failed reads", m.reads.failed_total)
        quota = m.config.quota_backend_bytes or 2 << 30
        yield gauge("etcd_server_quota_backend_bytes", "Quota", max(quota, 0))
        version = GaugeMetricFamily("etcd_server_version", "Version", labels=["server_version"])
        version.add_metric([m.config.advertised_etcd_version], 1)
        yield version
        insecure = GaugeMetricFamily("configsvc_insecure", "Born under --insecure-dev")
        insecure.add_metric([], m.config.insecure_dev)
        yield insecure

    def _store(self) -> Iterator[Metric]:
        m = self._member
        store = m.store
        yield gauge("etcd_mvcc_db_total_size_in_bytes", "Key space with its window", store.db_bytes)
        yield gauge("etcd_mvcc_db_total_size_in_use_in_bytes", "The same", store.db_bytes)
        yield gauge("etcd_debugging_mvcc_keys_total", "Live keys", store.key_count)
        yield gauge("etcd_debugging_mvcc_current_revision", "Revision", store.revision)
        floor = store.compact_revision
        yield gauge("etcd_debugging_mvcc_compact_revision", "KV floor", floor)
        yield gauge("etcd_debugging_mvcc_watcher_total", "Watchers", len(m.hub))
        yield gauge("etcd_debugging_mvcc_slow_watcher_total", "Watchers behind", m.hub.behind)
        yield gauge("etcd_debugging_mvcc_watch_stream_total", "Watch streams", m.hub.streams)
        yield counter("etcd_debugging_mvcc_events", "Events sent", m.hub.events_total)
        yield counter("etcd_debugging_server_lease_expired", "Expired", m.leases.expired_total)
        yield counter("etcd_debugging_lease_renewed", "Renewals", m.leases.renewed_total)
        yield gauge("etcd_debugging_auth_revision", "Auth revision", m.state.auth.revision)
        yield gauge("configsvc_history_lag_entries", "Entries not in SQL", m.history.lag().entries)

    def _process(self) -> Iterator[Metric]:
        usage = resource.getrusage(resource.RUSAGE_SELF)
        yield counter("process_cpu_seconds", "CPU", usage.ru_utime + usage.ru_stime)
        yield gauge("process_resident_memory_bytes", "Resident memory", resident_bytes())


def gauge(name: str, text: str, value: float) -> Metric:
    family = GaugeMetricFamily(name, text)
    family.add_metric([], float(value))
    return family


def counter(name: str, text: str, value: float) -> Metric:
    """``name`` without ``_total``: the library adds it."""
    family = CounterMetricFamily(name, text)
    family.add_metric([], float(value))
    return family


def resident_bytes() -> int:
    """Resident set of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0


def exposition(member: Member) -> bytes:
    """The text a scrape gets."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MemberCollector(member))
    return generate_latest(registry)
