"""`headwater tenants`: which shops this deployment has, and what is left of one that goes.

Tenants come and go in the file that `tenants.file` names (config/tenants.py); servers and workers
follow it. What a tenant has in Kafka and Redis stays until it is dropped.
"""

from __future__ import annotations

import asyncio
from typing import Any

from cyclopts import App
from redis.asyncio import Redis
from rich.console import Console
from rich.table import Table

from commands.feed import progress_bar
from commands.generations import run_with_redis
from commands.process import Json, print_json
from config.api_keys import read_keys, revoke_keys_of
from config.errors import SettingsError, StoreError
from config.settings import Settings
from config.tenants import Tenant, plain_tenant, tenants_of
from store.dropping import delete_namespace
from store.generation_report import report_generations
from streams.tenant_topics import TenantTopics, topics_of

__all__ = ["tenants"]

_UNREAD_SECONDS = 60.0

tenants = App(
    name="tenants",
    help="Several shops on one deployment, each with keys, topics and settings of its own.",
    version_flags=[],
)


@tenants.command(name="list")
def list_(*, json: Json = False) -> None:
    """All of them, also those that are in the file no more and not dropped yet."""

    async def work(redis: Redis, settings: Settings) -> list[dict[str, Any]]:
        named = tenants_of(settings)
        topics = TenantTopics(settings)
        partitions = await asyncio.to_thread(topics.partitions)
        left = [one for one in await asyncio.to_thread(topics.tenants) if one not in named]
        found = [await _told(redis, settings, None, partitions)]
        found += [await _told(redis, one.settings, one, partitions) for one in named.values()]
        for name in left:
            try:
                own = plain_tenant(settings, name)
            except SettingsError:
                continue  # a topic that only looks like a tenant's
            found.append({**await _told(redis, own, None, partitions), "state": "left over"})
        return found

    found = run_with_redis(work)
    if json:
        print_json({"tenants": found})
        return
    table = Table("tenant", "state", "events", "latest", "partitions", "keys", "rate", box=None)
    for one in found:
        table.add_row(
            one["tenant"],
            one["state"],
            f"{one['events']:,}",
            one["latest"] or "",
            str(one["partitions"]),
            "" if one["api_keys"] is None else str(one["api_keys"]),
            one["rate"] or "any",
        )
    Console(markup=False).print(table)


@tenants.command
def drop(name: str, /, *, json: Json = False) -> None:
    """Delete all that a tenant has: topics, keys in Redis, little by little, and API keys.

    Its table has to be out of the file, so that nobody works for it any more. Interrupted and
    called again, it goes on.

    Parameters
    ----------
    name
        The tenant's.
    """

    async def work(redis: Redis, settings: Settings) -> dict[str, Any]:
        own = plain_tenant(settings, name)
        if name in tenants_of(settings):
            raise SettingsError(
                f"the tenant {name} is in {settings.tenants.file}: take its table out first, so "
                "that servers and workers let go of it"
            )
        topics = TenantTopics(settings)
        if not await asyncio.to_thread(topics.wait_until_unread, own, _UNREAD_SECONDS):
            raise StoreError(
                f"workers still read the topics of {name}: do all of them have this "
                f"tenants.file ({settings.tenants.file}), and does no replay run?"
            )
        deleted = await asyncio.to_thread(topics.delete, own)
        count = 0
        with progress_bar() as bar:
            task = bar.add_task("dropping", total=None, note="")
            async for some in delete_namespace(redis, own.store):
                count += some
                bar.update(task, note=f"{count:,} keys")
        path = settings.http.keys_file
        revoked = 0 if path is None or not path.exists() else revoke_keys_of(path, name)
        if not (deleted or count or revoked):
            raise StoreError(f"there is nothing of a tenant {name}: no topic, and no key")
        return {"tenant": name, "topics": deleted, "keys": count, "api_keys": revoked}

    told = run_with_redis(work)
    if json:
        print_json(told)
    else:
        print(
            f"{name} is gone: {len(told['topics'])} topics, {told['keys']:,} keys in Redis, "
            f"{told['api_keys']} API keys"
        )


async def _told(
    redis: Redis, settings: Settings, tenant: Tenant | None, partitions: dict[str, int]
) -> dict[str, Any]:
    generations = await report_generations(redis, settings)
    live = next((one for one in generations if one["state"] == "live"), None)
    path = settings.http.keys_file
    known = read_keys(path).values() if path is not None and path.exists() else None
    own = None if known is None else sum(one.tenant == settings.tenant for one in known)
    return {
        "tenant": settings.tenant,
        "state": "served",
        "generation": None if live is None else live["generation"],
        "events": 0 if live is None else live["events"],
        "latest": None if live is None else live["latest"],
        "partitions": sum(partitions.get(topic, 0) for topic in topics_of(settings)),
        "api_keys": own,
        "rate": None if tenant is None else tenant.rate,
        "settings": {} if tenant is None else tenant.differs,
    }
