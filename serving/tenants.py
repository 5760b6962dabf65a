"""Whose request it is: each tenant has an application of its own, made like the deployment's.

An application is made of settings, and a tenant's settings name its keys and topics alone: a
handler that is handed a request by a tenant's application cannot reach what is another's, and need
not know that there are tenants. This is the one place where a tenant is looked up, by its name.

The file of tenants is followed: one that comes has its application made, one that goes, or whose
settings change, lets requests under way finish first.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

import structlog
from aiohttp import web

from config.errors import HeadwaterError, SettingsError, StoreError
from config.followed import FollowedFile
from config.settings import Settings
from config.tenants import Tenant, read_tenants
from serving.scenarios import Scenarios

__all__ = ["TENANTS", "TENANT_HEADER", "Handler", "Tenants"]

log = structlog.get_logger("headwater.http")

TENANT_HEADER = "Headwater-Tenant"
"""By which a request says whose it is, where no key says it."""
_LOOK_SECONDS = 0.5
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


class _Served:
    """A tenant with its application, which runs."""

    def __init__(self, tenant: Tenant, app: web.Application) -> None:
        self.tenant = tenant
        self.app = app
        self.handle: Handler
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Raises HeadwaterError."""
        await self._runner.setup()
        if (server := self._runner.server) is None:
            raise StoreError(f"the application of {self.tenant.name} did not start")
        self.handle = server.request_handler

    async def close(self) -> None:
        """End it."""
        await self._runner.cleanup()


class Tenants:
    """Those that are named, by their names."""

    def __init__(self, settings: Settings, make: Callable[[Settings], web.Application]) -> None:
        """Raises SettingsError."""
        path = settings.tenants.file
        self._file = None if path is None else FollowedFile(path, partial(_read, settings))
        self._make = make
        self._pause = 2 * settings.redis.timeout_seconds
        self._served: dict[str, _Served] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()

    def get(self, name: str) -> Tenant | None:
        """What is known of one; None where it is not there."""
        served = self._served.get(name)
        return None if served is None else served.tenant

    def served(self, name: str) -> tuple[web.Application, Handler]:
        """Where the requests of one are answered. Raises StoreError where it has just gone."""
        if (one := self._served.get(name)) is None:
            raise StoreError(f"the tenant {name} is not here any more")
        return one.app, one.handle

    async def follow(self) -> None:
        """Have an application for each tenant of the file, and no others. One that cannot be made
        is told in the log, and tried again the next time: it is no reason to keep others waiting.
        """
        if self._file is None:
            return
        wanted = self._file.value
        for name in [one for one in self._served if one not in wanted]:
            log.info("a tenant is gone", tenant=name)
            self._leave(self._served.pop(name))
        for name, tenant in wanted.items():
            known = self._served.get(name)
            if known is not None and known.tenant.settings == tenant.settings:
                known.tenant = tenant
                continue
            made = _Served(tenant, self._make(tenant.settings))
            try:
                await made.start()
            except HeadwaterError as error:
                log.error("a tenant cannot be served", tenant=name, error=str(error))
                await made.close()
                continue
            self._served[name] = made
            if known is not None:
                self._leave(known)

    async def run(self) -> None:
        """Follow the file, forever."""
        while self._file is not None:
            await asyncio.sleep(_LOOK_SECONDS)
            self._file.look()
            await self.follow()

    async def close(self) -> None:
        """End all applications."""
        self._ending.set()
        await asyncio.gather(*self._leaving, *(one.close() for one in self._served.values()))
        self._served.clear()

    def _leave(self, one: _Served) -> None:
        task = asyncio.create_task(self._close(one))
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

    async def _close(self, one: _Served) -> None:
        """Once requests under way have had their time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pause):
                await self._ending.wait()
        await one.close()


def _read(settings: Settings, path: Path) -> dict[str, Tenant]:
    found = read_tenants(settings, path)
    for name, one in found.items():
        try:
            Scenarios(one.settings)  # what is wrong with their filters is said now
        except SettingsError as error:
            raise SettingsError(f"{path}: {name}: {error}") from None
    return found


TENANTS = web.AppKey("tenants", Tenants)
