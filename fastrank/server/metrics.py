"""Prometheus metrics: under text-embeddings-inference's names, so that its dashboards work, and a few of ours."""

from __future__ import annotations

import re
from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from fastrank.server.timing import Timing

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 60)
_TOKENS = (8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536, 262144)
_SUFFIX = re.compile(rb"\b(te_\w+?)_total\b")  # TEI's counters have none
_PARTS = ("duration", "tokenization_duration", "queue_duration", "inference_duration")


class Metrics:
    """The numbers of one server. Labels have few values: routes and models are known before the first request."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry()
        self._count = self._counter("te_request_count", "Requests", "method")
        self._success = self._counter("te_request_success", "Requests answered with a result", "method")
        self._failure = self._counter("te_request_failure", "Requests answered with an error", "err")
        self._kinds = {kind: self._family(f"te_{kind}") for kind in ("embed", "predict")}
        self._durations = self._histograms("te_request")
        self._input_length = self._histogram("te_request_input_length", "Tokens of a request", _TOKENS)
        self._batch_size = self._histogram("te_batch_next_size", "Texts that run together", _TOKENS)
        self._batch_tokens = self._histogram("te_batch_next_tokens", "Tokens that run together", _TOKENS)
        self._requests = self._counter("fastrank_requests", "Requests", "route", "model", "status")
        self._texts = self._counter("fastrank_texts", "Texts and pairs", "model")
        self._tokens = self._counter("fastrank_tokens", "Tokens", "model")
        self._truncated = self._counter("fastrank_truncated_texts", "Texts that were cut", "model")
        self._padding = self._gauge("fastrank_padding_ratio", "Share of padding in what ran last", "model")
        self._loaded = self._gauge("fastrank_model_loaded", "1 once a model is loaded", "model")

    def finished(self, route: str, kind: str | None, status: int, failure: str | None, timing: Timing) -> None:
        """Count a request.

        Args:
            route: its path in the table of routes.
            kind: "embed", "predict" or None.
            status: of the answer.
            failure: why it failed, in TEI's words; None: it did not.
            timing: its times.
        """
        method = "batch" if timing.texts > 1 else "single"
        self._count.labels(method).inc()
        self._requests.labels(route, timing.model, str(status)).inc()
        if failure is not None:
            self._failure.labels(failure).inc()
            return
        self._success.labels(method).inc()
        values = (timing.total(), timing.tokenization, timing.queue, timing.inference)
        for histogram, value in zip(self._durations, values, strict=True):
            histogram.observe(value)
        self._input_length.observe(timing.tokens)
        if kind is not None:
            count, success, histograms = self._kinds[kind]
            count.inc(timing.texts)
            success.inc(timing.texts)
            for histogram, value in zip(histograms, values, strict=True):
                histogram.observe(value)
        self._texts.labels(timing.model).inc(timing.texts)
        self._tokens.labels(timing.model).inc(timing.tokens)
        if timing.truncated:
            self._truncated.labels(timing.model).inc(timing.truncated)

    def ran(self, model: str, texts: int, tokens: int, padded: int) -> None:
        """Count a unit: `tokens` of texts in `padded` places."""
        self._batch_size.observe(texts)
        self._batch_tokens.observe(padded)
        self._padding.labels(model).set(1 - tokens / padded if padded else 0)

    def loaded(self, model: str, *, loaded: bool) -> None:
        """Say whether a model is loaded."""
        self._loaded.labels(model).set(loaded)

    def waiting(self, requests: Callable[[], float], tokens: Callable[[], float]) -> None:
        """Where the numbers of waiting requests and tokens are read."""
        self._gauge("te_queue_size", "Requests that wait").set_function(requests)
        self._gauge("fastrank_waiting_tokens", "Tokens that wait").set_function(tokens)

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return _SUFFIX.sub(rb"\1", generate_latest(self._registry))

    def _family(self, name: str) -> tuple[Counter, Counter, list[Histogram]]:
        count = self._counter(f"{name}_count", "Texts")
        return count, self._counter(f"{name}_success", "Texts with a result"), self._histograms(name)

    def _histograms(self, name: str) -> list[Histogram]:
        return [self._histogram(f"{name}_{part}", "Seconds", _SECONDS) for part in _PARTS]

    def _counter(self, name: str, what: str, *labels: str) -> Counter:
        return Counter(name, what, labels, registry=self._registry)

    def _gauge(self, name: str, what: str, *labels: str) -> Gauge:
        return Gauge(name, what, labels, registry=self._registry)

    def _histogram(self, name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, what, registry=self._registry, buckets=buckets)
