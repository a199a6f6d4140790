"""What Prometheus reads. Base units, one registry a service, no label of a user."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

from penjing.serve.batcher import Batcher
from penjing.serve.models import Models

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TOKENS = (16, 64, 256, 512, 1024, 2048, 4096, 8192)


class Metrics:
    """Counters and histograms of a service; gauges are read when they are asked for."""

    def __init__(self, models: Models, batcher: Batcher) -> None:
        self._batcher = batcher
        self.registry = registry = CollectorRegistry()
        Gauge("penjing_build_info", "Version of penjing", ["version"], registry=registry).labels(
            version("penjing")
        ).set(1)
        self.requests = Counter(
            "penjing_requests", "Answered requests", ["route", "method", "code"], registry=registry
        )
        self.duration = Histogram(
            "penjing_request_duration_seconds",
            "From the first byte of a request to the last of its answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.answers = Counter(
            "penjing_answers", "Inputs answered", ["model", "version", "way"], registry=registry
        )
        self.queued = Histogram(
            "penjing_queue_duration_seconds", "Wait for the first pass", buckets=SECONDS, registry=registry
        )
        self.tokens = Counter("penjing_tokens", "Tokens read or said", ["kind"], registry=registry)
        self.refused = Counter("penjing_refused", "Requests refused", ["reason"], registry=registry)
        self.events = Counter(
            "penjing_model_events", "Models opened, closed, refused, live", ["event"], registry=registry
        )
        self.unrecorded = Counter(
            "penjing_unrecorded", "Requests that could not be recorded", registry=registry
        )
        self.unaudited = Counter(
            "penjing_unaudited", "Lines of the audit log that could not be written", registry=registry
        )
        self._pass = Histogram(
            "penjing_pass_duration_seconds", "One pass", buckets=SECONDS, registry=registry
        )
        self._pass_tokens = Histogram(
            "penjing_pass_tokens", "Tokens of a pass", buckets=TOKENS, registry=registry
        )
        self._pass_rows = Histogram(
            "penjing_pass_sequences",
            "Sequences of a pass",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        gauges: dict[str, tuple[str, Any]] = {
            "penjing_queue_tokens": ("Tokens that wait, guessed", lambda: float(batcher.waiting)),
            "penjing_pace_tokens_per_second": ("Tokens computed in a second, lately", lambda: batcher.pace),
            "penjing_models_open": ("Bundles in memory", lambda: float(models.n_open)),
        }
        for name, (about, value) in gauges.items():
            Gauge(name, about, registry=registry).set_function(value)

    def observe_passes(self) -> None:
        """Take over the passes since the last time. The batcher keeps the last 10,000."""
        for sequences, tokens, seconds in self._batcher.drain_passes():
            self._pass.observe(seconds)
            self._pass_tokens.observe(tokens)
            self._pass_rows.observe(sequences)

    def families(self, replica: str = "") -> list[Metric]:
        """All of it as it stands; `replica`, where one is named, is a label of every sample."""
        self.observe_passes()
        own = {"replica": replica} if replica else {}
        found = [*self.registry.collect()]
        for family in found:
            family.samples = [one._replace(labels={**one.labels, **own}) for one in family.samples]
        return found


@dataclass(frozen=True)
class _Families:
    """What a registry asks for its families."""

    collect: Callable[[], Iterable[Metric]]


def exposed(parts: Iterable[Iterable[Metric]]) -> bytes:
    """Families of one process or several in the exposition format, version 0.0.4: each name once."""
    merged: dict[str, Metric] = {}
    for family in chain.from_iterable(parts):
        about = (family.name, family.documentation, family.type, family.unit)
        merged.setdefault(family.name, Metric(*about)).samples += family.samples
    registry = CollectorRegistry()
    registry.register(_Families(merged.values))
    return generate_latest(registry)
