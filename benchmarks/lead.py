"""Which ranking a measured server answers by."""

from __future__ import annotations

from config.settings import Settings
from processors.learning import Taught
from processors.standing import Standing
from store.connect import connect
from store.keys import Keys
from store.taught import pack_taught

__all__ = ["let_lead"]


async def let_lead(settings: Settings, *, learned: bool) -> None:
    """Put the learned ranking in the lead, or take it out, by the value that workers write: an
    untaught model, for what it computes takes the same time.
    """
    taught = Taught(standing=Standing(leads=learned))
    redis = connect(settings)
    try:
        await redis.set(Keys(settings.store).taught, pack_taught(taught))
    finally:
        await redis.aclose()
