"""Sends spans and metrics as OTLP over HTTP, with the exporters of OpenTelemetry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import Metric, MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tidemill import __version__
from tidemill.deploy.otel.settings import Settings
from tidemill.deploy.types import RequestEvent

_NAME = "tidemill"


class OtlpSender:
    """A `tidemill.deploy.otel.observer.Sender`; where to, with which headers and time limits the environment says.

    Parameters
    ----------
    settings : Settings
        Which signals there are.
    """

    def __init__(self, settings: Settings) -> None:
        about = {"service.version": __version__}
        self._resource = Resource.create(about if settings.named else {**about, "service.name": _NAME})
        self._parents = TraceContextTextMapPropagator()
        self._spans: TracerProvider | None = None
        self._metrics: OTLPMetricExporter | None = None
        if settings.spans:
            # What becomes a span was decided before.
            self._spans = TracerProvider(ALWAYS_ON, self._resource, shutdown_on_exit=False)
            self._spans.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
            self._tracer = self._spans.get_tracer(_NAME, __version__)
        if settings.metrics:
            self._metrics = OTLPMetricExporter()

    def follows(self, traceparent: str) -> bool:
        """True where the caller's span is recorded."""
        parent = trace.get_current_span(self._parents.extract({"traceparent": traceparent})).get_span_context()
        return parent.is_valid and parent.trace_flags.sampled

    def span(self, event: RequestEvent, ended_ns: int, parent: str) -> None:
        """One span for the request, and one for each stage of an answered one.

        The engine measures how long a stage took, not when it began: the stages are laid end to end before the answer.
        """
        above = self._parents.extract({"traceparent": parent})
        began = ended_ns - int(event.total_ms * 1e6)
        whole = self._tracer.start_span(
            f"predict {event.endpoint}", above, trace.SpanKind.SERVER, _attributes(event), start_time=began
        )
        if event.status >= 500:
            whole.set_status(trace.Status(trace.StatusCode.ERROR, event.error))
        if event.status == 200:
            inside = trace.set_span_in_context(whole)
            until = ended_ns
            for stage, ms in (
                ("encode", event.encode_ms),
                ("model", event.model_ms),
                ("queue", event.queue_ms + event.wait_ms),
            ):
                since = max(began, until - int(max(0.0, ms) * 1e6))
                self._tracer.start_span(stage, inside, start_time=since).end(until)
                until = since
        whole.end(ended_ns)

    def metrics(self, metrics: Sequence[Metric]) -> None:
        """Send them now."""
        if self._metrics is not None:
            scope = ScopeMetrics(InstrumentationScope(_NAME, __version__), metrics, "")
            self._metrics.export(MetricsData([ResourceMetrics(self._resource, [scope], "")]))

    def close(self) -> None:
        """Send what is pending."""
        if self._spans is not None:
            self._spans.shutdown()
        if self._metrics is not None:
            self._metrics.shutdown()


def _attributes(event: RequestEvent) -> dict[str, Any]:
    told: dict[str, Any] = {
        "tidemill.endpoint": event.endpoint,
        "tidemill.revision": event.revision,
        "tidemill.request_id": event.request_id,
        "tidemill.rows": event.rows,
        "http.response.status_code": event.status,
    }
    if event.retries:
        told["tidemill.retries"] = event.retries
    if event.shadow:
        told["tidemill.shadow"] = True
    if event.error:
        told["error.type"] = event.error
    return told
