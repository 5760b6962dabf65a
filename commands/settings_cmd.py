"""`headwater settings`: every setting with its value, default and meaning."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from commands.process import Json, TenantName, print_json
from config.settings import Settings, describe, load_settings
from config.tenants import named_tenant

__all__ = ["markdown", "settings"]

_PAGE = """\
# Settings
Made by `make docs` from `config/settings.py`; `headwater settings` shows the values in use.

Environment variables go over the settings file, the file over the defaults. The file is
`headwater.toml` in the working directory, or the one that `HEADWATER_CONFIG` names; in it,
`http.port` is `port` under `[http]`. A setting out of its range, or one that does not exist,
ends every command with exit code 2 and a line that names it.

| setting | variable | default | meaning |
|---|---|---|---|""".splitlines()


def settings(*, tenant: TenantName = None, json: Json = False) -> None:
    """List every setting: its value, its default and what it means.

    A setting `http.port` is set by HEADWATER_HTTP__PORT, or by `port` under `[http]` in
    headwater.toml; the environment goes before the file.

    Parameters
    ----------
    tenant
        Whose they are: the deployment's with the tenant's over them.
    """
    rows = list(describe(named_tenant(load_settings(), tenant)))
    if json:
        print_json({"settings": rows})
        return
    table = Table("setting", "value", "default", "meaning", box=None, pad_edge=False)
    for row in rows:
        changed = row["value"] != row["default"]
        value, default = _shown(row["value"]), _shown(row["default"])
        table.add_row(row["name"], value, default, row["meaning"], style="bold" if changed else "")
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 160
    Console(width=width, markup=False).print(table)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def markdown() -> str:
    """docs/settings.md: every setting with its default and meaning."""
    rows = [
        f"| `{row['name']}` | `{row['variable']}` | {_code(row['default'])} | {row['meaning']} |"
        for row in describe(Settings.model_construct())
    ]
    return "\n".join([*_PAGE, *rows, ""])


def _code(value: Any) -> str:
    return "" if value is None else f"`{_shown(value)}`"


if __name__ == "__main__":
    print(markdown(), end="")  # `make docs` writes it to docs/settings.md
