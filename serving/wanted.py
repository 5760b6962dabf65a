"""What requests ask for, and what that means: after which session, and without which items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from serving.candidates import SessionItems, session_items
from serving.filters import Boost, Filter
from store.latest import latest_items
from store.vectors import unpack_sessions
from streams.columns import U64

__all__ = ["Choice", "Wanted", "wanted_of"]

_NO_ITEMS = np.zeros(0, np.uint64)
_SOMEBODY = np.zeros(1, np.uint64)


@dataclass(slots=True)
class Choice:
    """What a request asks for, with ids hashed."""

    n: int
    """Items in all, those that are skipped included."""
    user: int | None = None
    session: U64 | None = None
    """Items in time order; replaces the user's own session."""
    exclude: U64 | None = None
    exclude_seen: bool = False
    """Leave out items of the user's history and of the session."""
    diversity: float = 0.0
    """From 0, by score alone, to 1, by difference alone."""
    window: str | None = None
    """Trending window to fill up from first; then, and without, the shortest first."""
    explain: bool = False
    filter: Filter | None = None
    """What may be shown."""
    boosts: tuple[Boost, ...] = ()
    """What counts for more, or less."""
    skip: int = 0
    """So many of the first ones are left for the page before."""
    strict: bool = False
    """Rather too few items than one that does not fit the filter."""


@dataclass(slots=True)
class Wanted:
    """What one request wants to have worked out."""

    choice: Choice
    session: SessionItems
    """After which to recommend."""
    left_out: U64 | None
    """What must not be shown."""


def wanted_of(
    choices: Sequence[Choice], vectors: Sequence[bytes | None], disliked: int, most: int
) -> list[Wanted]:
    """What each choice wants, in order. `vectors` are those of the choices with a user, in their
    order, as `StoreReader.vectors` gives them; `disliked` is the event type that says so, -1 for
    none; `most` the items of a session. Raises StoreError for a value that is no session vector.
    """
    latest = latest_items(vectors, disliked, most)
    item, distance, times = latest.item, latest.distance, latest.times
    begins, lengths = latest.start.tolist(), latest.length.tolist()
    special = latest.dislikes.tolist()
    found: list[Wanted] = []
    row = -1
    for choice in choices:
        vector = None
        if choice.user is not None:
            row += 1
            vector = vectors[row]
            if _is_plain(choice) and not special[row]:
                own = slice(begins[row], begins[row + 1])
                session = SessionItems(item[own], distance[own], times[own], lengths[row])
                found.append(Wanted(choice, session, None))
                continue
        events, left_out = _events(choice, vector, disliked)
        found.append(Wanted(choice, session_items(events, len(events), most), left_out))
    return found


def _is_plain(choice: Choice) -> bool:
    """It wants the user's own session, and nothing left out."""
    return choice.session is None and choice.exclude is None and not choice.exclude_seen


def _events(choice: Choice, vector: bytes | None, disliked: int) -> tuple[U64, U64 | None]:
    """The session's items in time order, and what must not be shown."""
    parts = [] if choice.exclude is None else [choice.exclude]
    history = unpack_sessions(_SOMEBODY, [vector])
    item, tag = history.item, history.tag
    unwanted = item[history.kind == disliked]
    if len(unwanted):
        parts.append(unwanted)
    if choice.exclude_seen and len(item):
        parts.append(item)
    events = item[tag == tag[-1]] if len(item) else _NO_ITEMS
    if choice.session is not None:
        events = choice.session
        if choice.exclude_seen:
            parts.append(events)
    if len(unwanted):
        events = events[~np.isin(events, unwanted)]
    return events, np.concatenate(parts) if parts else None
