"""Numbers for Prometheus.

Counting is done in plain attributes; the client library is loaded by the first scrape, as start-up
time matters more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prometheus_client.core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Upper bounds in seconds; a commit takes some 10 ms, a wait for a quorum up to 30 s.
_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0)


@dataclass(eq=False)  # registries of the client library hash their collectors
class Metrics:
    """What the node counts. `gauges` gives the present values of things that it does not count."""

    gauges: Callable[[], Mapping[str, float]]
    refusals: Counter[str]
    limited: Mapping[tuple[str, str], int]  # by member's common name and limit
    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    transactions: Counter[str] = field(default_factory=Counter)
    submit_seconds: float = 0.0
    submit_buckets: Counter[float] = field(default_factory=Counter)
    submits: int = 0

    def submitted(self, outcome: str, seconds: float) -> None:
        """Count a transaction: outcome is ok, refused, inadmissible or waiting."""
        self.transactions[outcome] += 1
        self.submits += 1
        self.submit_seconds += seconds
        for bound in _BOUNDS:
            if seconds <= bound:
                self.submit_buckets[bound] += 1

    def exposition(self) -> bytes:
        """Return everything in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics (the client library calls this)."""
        from prometheus_client.core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            HistogramMetricFamily,
        )

        for name, value in self.gauges().items():
            yield GaugeMetricFamily(f"swarm_{name}", f"{name.replace('_', ' ')} now", value=value)
        requests = CounterMetricFamily(
            "swarm_api_requests", "answered requests", labels=["path", "status"]
        )
        for (path, status), count in sorted(self.requests.items()):
            requests.add_metric([path, str(status)], count)
        yield requests
        refusals = CounterMetricFamily(
            "swarm_api_refusals", "clients and requests turned away", labels=["kind"]
        )
        for kind, count in sorted(self.refusals.items()):
            refusals.add_metric([kind], count)
        yield refusals
        limited = CounterMetricFamily(
            "swarm_member_refusals",
            "requests of a member beyond its share",
            labels=["member", "limit"],
        )
        for (member, limit), count in sorted(self.limited.items()):
            limited.add_metric([member, limit], count)
        yield limited
        transactions = CounterMetricFamily(
            "swarm_transactions", "submitted transactions", labels=["outcome"]
        )
        for outcome, count in sorted(self.transactions.items()):
            transactions.add_metric([outcome], count)
        yield transactions
        buckets = [(str(bound), float(self.submit_buckets[bound])) for bound in _BOUNDS]
        yield HistogramMetricFamily(
            "swarm_submit_seconds",
            "time from a transaction's arrival to its answer",
            buckets=[*buckets, ("+Inf", float(self.submits))],
            sum_value=self.submit_seconds,
        )
