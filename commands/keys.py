"""`headwater keys`: API keys are made, listed and revoked, in the file that servers follow."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from commands.process import Json, TenantName, print_json
from config.api_keys import Scope, create_key, read_keys, revoke_key
from config.errors import SettingsError
from config.settings import Settings, load_settings
from config.tenants import named_tenant

__all__ = ["keys"]

keys = App(
    name="keys",
    help="API keys: who may ask, send and change what, and how often.",
    version_flags=[],
)


@keys.command
def create(
    name: str,
    /,
    *,
    scope: Annotated[tuple[Scope, ...], Parameter(negative=())] = ("read",),
    rate: str | None = None,
    tenant: TenantName = None,
    json: Json = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept.

    Parameters
    ----------
    name
        What it is for, to list and revoke it by.
    scope
        read: recommendations, items and users; write: events, items, forgetting users; page: events
        and recommendations alone, for keys that stand in web pages; admin: the admin port. Give
        several by naming each: --scope read --scope write.
    rate
        How often it may be used, over all servers: 100/second, or 5000 per 10 minutes.
    tenant
        Whose it is: it reaches nothing of any other. The one that is not named by default.
    """
    settings = load_settings()
    whose = named_tenant(settings, tenant).tenant
    key = create_key(_file(settings), name, scope, rate, whose)
    if json:
        told = {"name": name, "key": key, "scopes": list(scope), "rate": rate, "tenant": whose}
        print_json(told)
    else:
        print(key)


@keys.command(name="list")
def list_(*, json: Json = False) -> None:
    """All of them, without what is secret."""
    found = read_keys(_file(load_settings())).values()
    if json:
        print_json(
            {
                "keys": [
                    {
                        "name": one.name,
                        "scopes": one.scopes,
                        "rate": one.rate,
                        "created": one.created,
                        "tenant": one.tenant,
                    }
                    for one in found
                ]
            }
        )
        return
    table = Table("name", "tenant", "scopes", "rate", "created", box=None)
    for one in found:
        made = datetime.fromtimestamp(one.created / 1000, UTC).isoformat(timespec="seconds")
        table.add_row(one.name, one.tenant, ", ".join(one.scopes), one.rate or "any", made)
    Console(markup=False).print(table)


@keys.command
def revoke(name: str, /) -> None:
    """Servers refuse it from the next second on.

    Parameters
    ----------
    name
        As `headwater keys list` shows it.
    """
    revoke_key(_file(load_settings()), name)


def _file(settings: Settings) -> Path:
    path = settings.http.keys_file
    if path is None:
        raise SettingsError(
            "setting http.keys_file (HEADWATER_HTTP__KEYS_FILE) names no file: set it, for this "
            "command and for the servers; without it, they ask nobody for a key"
        )
    return path
