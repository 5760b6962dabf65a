"""OpenTelemetry traces: spans of requests, reads of the store, records sent and batches applied.

Off unless the setting `traces.endpoint` names a collector (OTLP over HTTP); then it takes the
packages of `pip install headwater[traces]`. While it is off nothing of them is imported here, and a
span costs as much as calling a function.

Trees of spans cross Kafka in the records' `traceparent` header. Where one piece of work is of many
others, a batch of records or requests that are answered together, its span is the root of a tree of
its own and has links to theirs, a bounded number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal

from config.errors import SettingsError
from config.settings import TraceSettings

if TYPE_CHECKING:
    from opentelemetry.trace import Span, SpanContext

__all__ = [
    "MOST_LINKS",
    "here",
    "span",
    "start_traces",
    "stop_traces",
    "traceparent",
    "traceparents",
    "traces_on",
]

MOST_LINKS = 32
"""Of one span."""
Kind = Literal["INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
Headers = Iterable[tuple[str, bytes | None]]
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")
_EXPORT_SECONDS = 5.0
_FLUSH_MS = 2_000
_NOTHING: AbstractContextManager[None] = nullcontext()


class _Traces:
    """What is there while traces are on."""

    def __init__(self, settings: TraceSettings, service: str) -> None:
        try:
            from opentelemetry import trace
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import SpanLimits, TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

            from config.sampling import sampler
        except ImportError as error:
            raise SettingsError(
                f"setting traces.endpoint (HEADWATER_TRACES__ENDPOINT) is set, but {error.name} is "
                "not installed: pip install 'headwater[traces]', or leave it unset"
            ) from None
        self.api = trace
        self.extract = TraceContextTextMapPropagator().extract
        self.provider = TracerProvider(
            sampler=sampler(settings.share),
            resource=Resource.create({"service.name": service}),
            span_limits=SpanLimits(max_links=MOST_LINKS),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=_EXPORT_SECONDS)
        self.provider.add_span_processor(
            BatchSpanProcessor(exporter, schedule_delay_millis=settings.delay_ms)
        )
        self.tracer = self.provider.get_tracer("headwater")


_traces: _Traces | None = None


def start_traces(settings: TraceSettings, service: str) -> None:
    """Trace from now on, where the settings say so. Raises SettingsError."""
    global _traces
    if settings.endpoint is not None:
        _traces = _Traces(settings, service)


def stop_traces() -> None:
    """Send what is left, which takes two seconds at most, and trace no more."""
    global _traces
    if _traces is not None:
        ending, _traces = _traces, None
        ending.provider.force_flush(_FLUSH_MS)
        ending.provider.shutdown()


def traces_on() -> bool:
    """Whether spans are made at all."""
    return _traces is not None


def span(
    name: str,
    kind: Kind = "INTERNAL",
    attributes: Mapping[str, str | int | float | bool] | None = None,
    *,
    parent: Mapping[str, str] | None = None,
    links: Sequence[SpanContext] = (),
) -> AbstractContextManager[Span | None]:
    """A span around a block, in which it is the current one; None while traces are off.

    `parent` are headers of a request that may have a `traceparent`; without one the current span is
    the parent. Exceptions that leave the block are recorded.
    """
    if _traces is None:
        return _NOTHING
    api = _traces.api
    return _traces.tracer.start_as_current_span(
        name,
        context=None if parent is None else _traces.extract(parent),
        kind=api.SpanKind[kind],
        attributes=attributes,
        links=[api.Link(one) for one in links[:MOST_LINKS]],
    )


def here() -> SpanContext | None:
    """The current span, where it is one that is kept."""
    if _traces is None:
        return None
    context = _traces.api.get_current_span().get_span_context()
    return context if context.is_valid and context.trace_flags.sampled else None


def traceparent() -> str | None:
    """The current span, where it is one that is kept, as a header says it (W3C Trace Context)."""
    found = here()
    if found is None:
        return None
    return f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags:02x}"


def traceparents(records: Iterable[Headers]) -> list[SpanContext]:
    """Spans that headers of records name: different ones, as many as a span may have links."""
    if _traces is None:
        return []
    found: dict[bytes, Any] = {}
    for headers in records:
        for name, value in headers:
            if name == "traceparent" and value and value not in found:
                parts = _TRACEPARENT.fullmatch(value)
                if parts is not None:
                    found[value] = _traces.api.SpanContext(
                        int(parts[1], 16),
                        int(parts[2], 16),
                        is_remote=True,
                        trace_flags=_traces.api.TraceFlags(int(parts[3], 16)),
                    )
        if len(found) == MOST_LINKS:
            break
    return list(found.values())
