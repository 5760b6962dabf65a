"""`headwater settings`: every setting with its value, default and meaning."""

from __future__ import annotations

import shutil
import sys
from typing import Any

import orjson
from rich.console import Console
from rich.table import Table

from commands.process import Json, print_json, redacted
from config.settings import describe, load_settings

__all__ = ["settings"]


def settings(*, json: Json = False) -> None:
    """List every setting: its value, its default and what it means.

    A setting `http.port` is set by HEADWATER_HTTP__PORT, or by `port` under `[http]` in
    headwater.toml; the environment goes before the file.
    """
    rows = list(describe(load_settings()))
    for row in rows:
        if row["name"] == "redis.url" and row["value"]:
            row["value"] = redacted(row["value"])
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
