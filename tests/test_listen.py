"""Many that connect together are accepted together, on the event loop that servers run on."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import uvloop
from aiohttp import web

from serving.processes import listen

CLIENTS = 64


def test_those_that_connect_together_are_not_accepted_one_by_one() -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.setblocking(False)
    with listener, contextlib.ExitStack() as clients:

        async def turns() -> int:
            """Of the loop, until all are accepted."""
            runner = web.AppRunner(web.Application(), access_log=None)
            await runner.setup()
            try:
                await listen(runner, listener)
                for _ in range(CLIENTS):
                    clients.enter_context(socket.create_connection(listener.getsockname(), 5))
                assert runner.server is not None
                for turn in range(10 * CLIENTS):
                    if len(runner.server.connections) == CLIENTS:
                        return turn
                    await asyncio.sleep(0)
                raise AssertionError(f"{len(runner.server.connections)} were accepted")
            finally:
                await runner.cleanup()

        assert uvloop.run(turns()) <= CLIENTS // 4
