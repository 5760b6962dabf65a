"""What may be shown of a secret: that there is one."""

from __future__ import annotations

import re

from yarl import URL

__all__ = ["HIDDEN", "redacted"]

HIDDEN = "***"
_USER = re.compile(r"(?<=://)([^/@]*)@")


def redacted(url: str) -> str:
    """An address as it may be shown: without the password it may carry."""
    # The list of hosts of a redis+sentinel:// address is more than a URL may have.
    url = _USER.sub(_without_password, url)
    try:
        parsed = URL(url, encoded=True)
        secrets = [name for name in parsed.query if "password" in name]
    except ValueError:
        return "(not an address)"
    if secrets:
        return str(parsed.update_query(dict.fromkeys(secrets, HIDDEN)))
    return url


def _without_password(found: re.Match[str]) -> str:
    name, colon, _ = found[1].partition(":")
    return f"{name}:{HIDDEN}@" if colon else found[0]
