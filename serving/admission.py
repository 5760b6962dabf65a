"""Who may ask what, and how often: API keys with scopes and rates.

Without `http.keys_file` nobody is asked for a key. With it, every request of the API needs one, as
`Authorization: Bearer KEY` or `X-API-Key: KEY`, that has the scope of what it asks for. The scope
`page` is for keys that stand in web pages, where everybody finds them: it allows what pages do,
events and recommendations, and nothing else. Health, metrics, the API's description and the
console's page need none.

A key's rate is counted in Redis, so it holds over all server processes together; so does the rate
of a tenant. While Redis does not answer in time, nobody is refused for that: a shop that can answer
goes on to do so.

A key belongs to one tenant, and its requests are answered from what is that tenant's. Without keys,
the header `Headwater-Tenant` says whose a request is; beside a key it may say the same and nothing
else. What needs no key is the deployment's, unless the header asks for a tenant's, by its key.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import NamedTuple

from aiohttp import hdrs, web
from limits import RateLimitItem, parse
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.api_keys import ApiKey, Scope, hash_of, read_keys
from config.followed import FollowedFile
from config.settings import DEFAULT_TENANT, Settings
from serving import metrics
from serving.cors import is_for_pages
from serving.problems import problem
from serving.tenants import TENANT_HEADER, Tenants
from store.rates import rate_storage

__all__ = [
    "ADMIN",
    "ADMISSION",
    "API",
    "EVERYBODY",
    "Admission",
    "Admitted",
    "on_admin_port",
    "scope_of",
]

API = "/v1/"
"""How paths begin that need a key, and that are refused where there are too many requests."""
ADMIN = "/admin/"
"""How paths begin that are answered on the admin port alone."""
_ASKED_BY_POST = "/v1/recommendations"
_MOST_KNOWN = 10_000
_RATE_SECONDS = 0.1
"""Longest wait for a rate to be counted."""


def scope_of(method: str, path: str) -> Scope | None:
    """What a request must be allowed to do; None where no key is needed."""
    if path.startswith(ADMIN):
        return "admin"
    if not path.startswith(API) or method == hdrs.METH_OPTIONS:
        return None
    if method in (hdrs.METH_GET, hdrs.METH_HEAD) or path.startswith(_ASKED_BY_POST):
        return "read"
    return "write"


def on_admin_port(request: web.BaseRequest, port: int | None) -> bool:
    """Whether a request came in through the admin port, if there is one."""
    local = None if request.transport is None else request.transport.get_extra_info("sockname")
    return port is not None and local is not None and local[1] == port


class Admitted(NamedTuple):
    """Whose a request is."""

    tenant: str
    refusal: web.Response | None = None
    """The answer, where it is not let in."""


EVERYBODY = Admitted(DEFAULT_TENANT)
"""Requests at which there is nothing to look."""


class Admission:
    """Looks at requests before anything else does, and says whose they are."""

    def __init__(self, settings: Settings, redis: Redis, tenants: Tenants) -> None:
        """`redis` counts rates. Raises SettingsError."""
        path = settings.http.keys_file
        self._file = None if path is None else FollowedFile(path, read_keys)
        self._tenants = tenants
        self._hashes: dict[str, str] = {}
        self._rates: dict[str, RateLimitItem] = {}
        self._redis, self._namespace = redis, settings.store.namespace
        self._limiters: dict[str, SlidingWindowCounterRateLimiter] = {}

    @property
    def asks_for_keys(self) -> bool:
        """Whether requests need a key."""
        return self._file is not None

    def asks(self, request: web.BaseRequest) -> bool:
        """Whether there is anything to look at: else a request is let in, for the tenant that is
        not named.
        """
        return self.asks_for_keys or TENANT_HEADER in request.headers

    async def run(self) -> None:
        """Follow the file of keys, forever, where there is one."""
        if self._file is not None:
            await self._file.run()

    async def admit(self, request: web.BaseRequest) -> Admitted:
        """Whose request it is, and whether it is let in."""
        named = request.headers.getall(TENANT_HEADER, [])
        if len(named) > 1:
            told = problem(400, f"send {TENANT_HEADER} once", field=TENANT_HEADER)
            return Admitted(DEFAULT_TENANT, told)
        scope = scope_of(request.method, request.rel_url.raw_path)
        if self._file is None:
            name = named[0] if named else DEFAULT_TENANT
            if name != DEFAULT_TENANT and self._tenants.get(name) is None:
                told = problem(404, f"there is no tenant {name[:40]!r} here", field=TENANT_HEADER)
                return Admitted(DEFAULT_TENANT, told)
            return Admitted(name, await self._counted(name))
        if scope is None and not named:
            return EVERYBODY
        key = self._known(request)
        if key is None:
            told = problem(
                401,
                "send an API key that is known here: Authorization: Bearer KEY, or X-API-Key: KEY",
                headers={"WWW-Authenticate": "Bearer"},
            )
            return Admitted(DEFAULT_TENANT, told)
        if key.tenant != DEFAULT_TENANT and self._tenants.get(key.tenant) is None:
            told = problem(403, f"the tenant {key.tenant} of the key {key.name} is not there")
            return Admitted(DEFAULT_TENANT, told)
        return Admitted(key.tenant, await self._refused(request, key, scope, named))

    async def _refused(
        self, request: web.BaseRequest, key: ApiKey, scope: Scope | None, named: Sequence[str]
    ) -> web.Response | None:
        """The answer to a request with a key that is not let in."""
        if named and named[0] != key.tenant:
            told = f"{key.name} is a key of the tenant {key.tenant}, not of {named[0][:40]!r}"
            return problem(403, told, field=TENANT_HEADER)
        for_pages = "page" in key.scopes and is_for_pages(request.rel_url.raw_path)
        # What everybody may ask of the deployment, a key may ask of its tenant.
        if scope is not None and scope not in key.scopes and not for_pages:
            return problem(
                403, f"this takes a key with the scope {scope}; {key.name} has not got that"
            )
        if key.rate is not None:
            refused = await self._count(key.tenant, key.sha256, key.name, key.rate)
            if refused is not None:
                return refused
        return await self._counted(key.tenant)

    async def _counted(self, name: str) -> web.Response | None:
        """The answer where a tenant has asked too often, with all its keys together."""
        tenant = self._tenants.get(name)
        if tenant is None or tenant.rate is None:
            return None
        return await self._count(name, "tenant", f"the tenant {name}", tenant.rate)

    def _known(self, request: web.BaseRequest) -> ApiKey | None:
        sent = request.headers.get("X-API-Key")
        if sent is None:
            kind, _, sent = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
            if kind.lower() != "bearer":
                return None
        if self._file is None or not sent:
            return None
        if (digest := self._hashes.get(sent)) is None:
            if len(self._hashes) >= _MOST_KNOWN:
                self._hashes.clear()
            digest = self._hashes[sent] = hash_of(sent)
        return self._file.value.get(digest)

    async def _count(self, tenant: str, what: str, who: str, rate: str) -> web.Response | None:
        """The answer where `what` was used too often."""
        limit = self._rates.get(rate)
        if limit is None:
            limit = self._rates[rate] = parse(rate)
        limiter = self._limiter(tenant)
        try:
            async with asyncio.timeout(_RATE_SECONDS):
                if await limiter.hit(limit, what):
                    return None
                reset, _ = await limiter.get_window_stats(limit, what)
        except (RedisError, TimeoutError):
            metrics.UNCOUNTED.inc()
            return None
        wait = max(1, round(reset - time.time()))
        return problem(
            429,
            f"{who} may ask {limit}; try again in {wait} s",
            headers={"Retry-After": str(wait)},
        )

    def _limiter(self, tenant: str) -> SlidingWindowCounterRateLimiter:
        """Counts among the tenant's own keys in Redis."""
        if (limiter := self._limiters.get(tenant)) is None:
            named = "" if tenant == DEFAULT_TENANT else f":{tenant}"
            storage = rate_storage(self._redis, f"{self._namespace}{named}{{c}}rate")
            limiter = self._limiters[tenant] = SlidingWindowCounterRateLimiter(storage)
        return limiter


ADMISSION = web.AppKey("admission", Admission)
