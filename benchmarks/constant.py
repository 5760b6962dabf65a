"""A server that answers every request with the same body: how much a load of one core can ask."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from aiohttp import web

__all__: list[str] = []

_ITEMS = 20


async def _answer(_request: web.BaseRequest) -> web.Response:
    item = '{"item_id":"item-12345","score":0.0123456789}'
    body = f'{{"recommendation_id":"0123456789abcdef","items":[{",".join([item] * _ITEMS)}]}}'
    return web.Response(text=body, content_type="application/json")


async def _serve() -> None:
    runner = web.ServerRunner(web.Server(_answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(site.name, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve())
