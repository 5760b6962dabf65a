"""`headwater inspect user|item ID`: what the store knows."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import orjson
from redis.exceptions import RedisError
from rich.console import Console
from rich.table import Table

from commands.process import Json, TenantName, print_json
from config.errors import ServiceError, SettingsError
from config.redaction import redacted
from config.settings import Settings, load_settings
from config.tenants import named_tenant
from serving.routes_items import known_of_user
from serving.shown import title_of
from store.connect import connect
from store.generations import Generations
from store.reader import StoreReader
from streams.columns import hash_id

__all__ = ["inspect"]

_NEIGHBOURS = 20


def inspect(
    what: Literal["user", "item"], id: str, /, *, tenant: TenantName = None, json: Json = False
) -> None:
    """Show what the store knows of a user or an item.

    Parameters
    ----------
    what
        user: the events kept of one. item: its counts, catalogue entry and nearest neighbours.
    id
        The user_id or item_id, 1 to 128 characters.
    tenant
        Whose user or item it is; of the one that is not named by default.
    """
    if not 1 <= len(id) <= 128:
        raise SettingsError(f"ID has {len(id)} characters; 1 to 128 are allowed")
    settings = named_tenant(load_settings(), tenant)
    found = asyncio.run(_look(settings, what, id))
    if json:
        print_json(found)
    elif what == "user":
        _show_user(found)
    else:
        _show_item(found)


async def _look(settings: Settings, what: str, id: str) -> dict[str, Any]:
    redis = connect(settings)
    try:
        live = await Generations(redis, settings).live_or_first(settings)
        settings = live.overlaid(settings)
        reader = StoreReader(redis, settings, live.number)
        if what == "user":
            return await known_of_user(reader, list(settings.events.weights), id)
        return await _known_of_item(reader, settings.rank.backward, id)
    except RedisError as error:
        raise ServiceError(
            f"Redis at {redacted(settings.redis.url or '')} does not answer: {error}; is it up?"
        ) from None
    finally:
        await redis.aclose()


async def _known_of_item(reader: StoreReader, backward: float, item_id: str) -> dict[str, Any]:
    item = hash_id(item_id)
    lists = await reader.item(item)
    sessions, events = await reader.counts(item)
    weight = lists.forward + backward * lists.backward
    order = np.argsort(-weight, kind="stable")[:_NEIGHBOURS]
    own, *texts = await reader.texts(
        np.concatenate([np.array([item], np.uint64), lists.neighbour[order]])
    )
    return {
        "item_id": item_id,
        "sessions": sessions,
        "events": events,
        "catalogue": orjson.loads(own.catalogue) if own.catalogue else None,
        "neighbours": len(lists.neighbour),
        "latest": int(lists.time[0]) * 1000,
        "nearest": [
            {
                "item_id": text.item_id,
                "title": title_of(text),
                "weight": weight,
            }
            for text, weight in zip(texts, weight[order].tolist(), strict=True)
        ],
    }


def _show_user(found: dict[str, Any]) -> None:
    console = Console(markup=False)
    console.print(f"user {found['user_id']}: {found['count']} events kept")
    table = Table("time", "type", "item", "title", "", box=None, pad_edge=False)
    for part, events in (("", found["history"]), ("session", found["session"])):
        for event in events:
            table.add_row(
                _time(event["timestamp"]),
                event["type"],
                event["item_id"],
                event.get("title", ""),
                part,
            )
    if found["count"]:
        console.print(table)


def _show_item(found: dict[str, Any]) -> None:
    console = Console(markup=False)
    console.print(
        f"item {found['item_id']}: {found['events']} events in {found['sessions']} sessions, "
        f"{found['neighbours']} neighbours"
        + (f", the latest of {_time(found['latest'])}" if found["neighbours"] else "")
    )
    entry = orjson.dumps(found["catalogue"]).decode() if found["catalogue"] else "none"
    console.print(f"catalogue: {entry}")
    table = Table("neighbour", "title", "weight", box=None, pad_edge=False)
    for near in found["nearest"]:
        table.add_row(near["item_id"], near["title"], f"{near['weight']:.3f}")
    if found["nearest"]:
        console.print(table)


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds")
