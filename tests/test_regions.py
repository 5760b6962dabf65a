"""Two regions of which either knows what happened in both, and one is killed whole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from benchmarks.regions import lose_a_region
from benchmarks.regions_logs import read_log
from benchmarks.tables import TABLES
from commands.regions import OneRegion, two_regions
from config.settings import load_settings
from store.connect import connect
from tests.chaos.checking import compare
from tests.chaos.checking import read_log as read_for_oracle
from tests.live import click, eventually

QUIET = {"share": 0, "first_events": 0}


async def test_a_region_is_lost_and_comes_back(tmp_path: Path) -> None:
    settings = load_settings(kafka={"partitions": 2, "bootstrap": None}, learn=QUIET)
    async with two_regions(settings, tmp_path) as both:
        told = await lose_a_region(both, rate=80, requests=10, items=60, users=100, seconds=12)
        print(told)
        assert "| lost, doubled in the end | 0, 0 |" in TABLES["regions"](told)
        assert (told["lost"], told["doubled"]) == (0, 0)
        east, west = told["asked"]["east"], told["asked"]["west"]
        assert east["failed"] == west["failed"] == east["moved"] == 0
        assert west["answered"] > 0
        assert west["moved"] > 0
        assert told["agreement"]["totals"]
        for region in both:
            redis = connect(region.settings)
            log = await asyncio.to_thread(read_for_oracle, region.settings)
            found = await compare(redis, region.settings, log.all())
            await redis.aclose()
            assert (found.lost, found.doubled, found.wrong) == (0, 0, ""), region.name
            assert found.events == told["events"]
        # Nothing was copied twice, or back to where it came from.
        for region in both:
            written = await asyncio.to_thread(read_log, region.settings)
            assert len(written) == told["events"]
            assert all(sum(one.copied for one in copies) <= 1 for copies in written.values())
            twice = [name for name, copies in written.items() if len(copies) > 1]
            assert len(twice) <= told["sent_again"]
        await _what_else_is_told(both)


async def _what_else_is_told(both: Sequence[OneRegion]) -> None:
    """The catalogue of one region is the other one's, too, and so is whom it has forgotten."""
    east, west = (aiohttp.ClientSession(one.stack.http_url) for one in both)
    async with east, west:
        async with west.put("/v1/items/lamp", json={"title": "A lamp"}) as answer:
            assert answer.status in (200, 202), await answer.text()
        async with west.post("/v1/events", json=click("anna", "lamp")) as answer:
            assert answer.status == 202, await answer.text()

        async def title() -> str | None:
            async with east.get("/v1/items/lamp") as answer:
                return (await answer.json()).get("title") if answer.status == 200 else None

        async def knows_anna() -> bool:
            async with east.get("/v1/users/anna") as answer:
                return answer.status == 200 and "lamp" in await answer.text()

        await eventually(title, lambda found: found == "A lamp")
        await eventually(knows_anna, bool)
        async with west.delete("/v1/users/anna") as answer:
            assert answer.status in (200, 202, 204), await answer.text()
        await eventually(knows_anna, lambda known: not known)
