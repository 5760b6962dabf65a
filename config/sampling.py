"""Which spans are kept. Imported only where traces are on."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

__all__ = ["sampler"]


class _Root(Sampler):
    """A share of all roots, and every one with a link to a span that is kept."""

    def __init__(self, share: float) -> None:
        self._share = TraceIdRatioBased(share)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        linked = any(link.context.trace_flags.sampled for link in links or ())
        return (ALWAYS_ON if linked else self._share).should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        return f"roots: {self._share.get_description()}, or linked"


def sampler(share: float) -> Sampler:
    """What has a parent is kept as that is; of all else, `share` and what is linked."""
    return ParentBased(_Root(share))
