"""`headwater up`: everything on this machine, until a signal ends it."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from commands.process import Count, Json, print_json, run_until_signalled
from commands.stack import Stack
from config.redaction import redacted
from config.settings import load_settings

__all__ = ["announce", "up"]


def up(
    *,
    processes: Count = None,
    workers: Count = None,
    cluster: Annotated[bool, Parameter(negative=())] = False,
    json: Json = False,
) -> None:
    """Start Kafka, Redis, topics, workers and the server here; stop them all on a signal.

    A Kafka or Redis that the settings name is used as it runs.

    Parameters
    ----------
    processes
        Server processes, 1 to 64; http.processes by default.
    workers
        Workers, 1 to 64; worker.processes by default.
    cluster
        Kafka with three brokers, and a Redis Cluster of three primaries with a replica each.
    """
    settings = load_settings()

    async def work() -> None:
        async with Stack(settings, workers=workers, processes=processes, cluster=cluster) as stack:
            announce(stack, json)
            await stack.failed()

    run_until_signalled(work)


def announce(stack: Stack, json: bool) -> None:
    """Say on stdout that everything answers, and where."""
    redis_url = redacted(stack.redis_url)
    if json:
        print_json(
            {
                "ready": True,
                "kafka": stack.kafka_bootstrap,
                "redis": redis_url,
                "http": stack.http_url,
            }
        )
        return
    print(f"kafka:   {stack.kafka_bootstrap}")
    print(f"redis:   {redis_url}")
    print(f"console: {stack.http_url}/", flush=True)
