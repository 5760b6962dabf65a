"""The whole API under thousands of requests that schemathesis makes out of /openapi.json, good ones
and bad ones, against real Kafka, Redis, a worker and a server.

The same seed makes the same requests: HEADWATER_TEST_SEED sets it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import requests
import schemathesis
from schemathesis.checks import CheckFunction
from schemathesis.config import SchemathesisConfig
from schemathesis.core.transport import Response
from schemathesis.specs.openapi.checks import (
    negative_data_rejection,
    positive_data_acceptance,
)

from commands.stack import Stack
from config.services import Services
from config.settings import DEFAULT_SCENARIOS, DEFAULT_WEIGHTS
from serving.openapi_operations import describe
from tests.live import shop
from tests.test_openapi_live import EXPERIMENTS

SEED = int(os.environ.get("HEADWATER_TEST_SEED", "20260101"))
LEAST = 5_000
EXAMPLES = 280
"""Of each operation, beside its examples and the cases that schemathesis derives from bounds."""

schema = schemathesis.openapi.from_dict(
    describe(DEFAULT_SCENARIOS, DEFAULT_WEIGHTS),
    config=SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "generation": {"max-examples": EXAMPLES, "database": "none"},
            "phases": {"coverage": {"generate-duplicate-query-parameters": True}},
            # Its bodies are those of POST /v1/recommendations, whose every bound is tried; and
            # GET, which is tried as well, asks for the user of this name.
            "operations": [
                {
                    "include-path": "/v1/recommendations/batch",
                    "phases": {"coverage": {"enabled": False}},
                }
            ],
        }
    ),
)


UNSAID = re.compile(
    # 5.0, which JSON Schema takes for an integer.
    r"Expected `int[^`]*`, got `float`"
    r"|item_id in the body is not the one in the path"
    r"|timestamp lies (before 1970|.* s in the future, .*)"
    # Sums over a whole filter.
    r"|a filter has more than \d+ (conditions|values)|filters are nested deeper than \d+"
)
"""Reasons to refuse what a schema takes."""
ITEMS = ("tea-1", "tea-2", "bread-1")
KNOWN = {
    "user_id": ("u1", "u2", "u3"),
    "item_id": ITEMS,
    "session": ITEMS,
    "exclude": ITEMS,
    "experiment": ("alike",),
}


def familiar(value: Any, known: Sequence[str] = ()) -> Any:
    """The same with most ids, which are random, being known ones."""
    if isinstance(value, dict):
        return {name: familiar(one, KNOWN.get(name, ())) for name, one in value.items()}
    if isinstance(value, list):
        return [familiar(one, known) for one in value]
    if known and isinstance(value, str) and 1 <= len(value) <= 128 and ord(value[0]) % 4:
        return known[ord(value[0]) % len(known)]
    return value


for place in ("path_parameters", "body"):
    schema.hooks.hook(f"map_{place}")(lambda _context, value: familiar(value))


@pytest.fixture(scope="module")
def live(services: Services, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("fuzz")
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        file = home / "experiments.toml"
        file.write_text(EXPERIMENTS)
        shopping = shop(services, home, experiments={"file": str(file)})
        yield runner.run(stack.enter_async_context(shopping))
        runner.run(stack.aclose())


@pytest.fixture(scope="module")
def http() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture(scope="module")
def sent() -> Counter[int | str]:
    """Answers by status, and those that have an item of the session to explain an item with."""
    return Counter()


@schema.parametrize()
@pytest.mark.timeout(600)
def test_every_answer_is_as_described(
    case: schemathesis.Case[Any], live: Stack, http: requests.Session, sent: Counter[int | str]
) -> None:
    response = case.call(live.http_url, http)
    sent[response.status_code] += 1
    sent["explained"] += b'"contributions":[{' in response.content
    case.validate_response(response, excluded_checks=list(unsaid(case, response)))


def unsaid(case: schemathesis.Case[Any], response: Response) -> Iterator[CheckFunction]:
    """Checks of what a schema cannot say."""
    value = response.json() if response.status_code in (202, 400) else {}
    rejected = value.get("rejected", [])
    if response.status_code == 400:
        told = [one["message"] for one in rejected] if rejected else [value["detail"]]
        # Of a call of Segment's or GA4's, the schema tells the frame alone.
        if all(map(UNSAID.fullmatch, told)) or (rejected and case.path != "/v1/events"):
            yield positive_data_acceptance
    if response.status_code == 202 and case.path == "/v1/events" and isinstance(case.body, list):
        # Some of them can be counted; the others must have been named.
        assert value["accepted"] + len(rejected) == len(case.body)
        yield negative_data_rejection


def test_these_were_thousands(sent: Counter[int | str]) -> None:
    if not sent:
        pytest.skip("counts what the test above has sent")
    print(dict(sent))
    explained = sent.pop("explained")
    assert explained
    assert sent.total() >= LEAST
    assert all(sent[status] for status in (200, 202, 400, 404, 405))
