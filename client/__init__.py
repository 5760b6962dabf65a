"""A typed client of a Headwater server, for services on asyncio.

    async with HeadwaterClient("http://localhost:8080") as hw:
        await hw.send(Event("user-1", "item-9", "view"))
        answer = await hw.recommend(user_id="user-1", n=5)

Needs aiohttp and msgspec, and nothing else of this project. `client.py` has what it can do,
`calls.py` how one call is made and tried again, `buffer.py` what `track` does, `answers.py` what
comes back, `errors.py` what is raised.
"""

from client.answers import (
    Contribution,
    EventsAnswer,
    Experiment,
    Explanation,
    FilledUp,
    Recommendations,
    RecommendedItem,
    RejectedEvent,
    User,
    UserEvent,
)
from client.client import HeadwaterClient
from client.errors import (
    BadRequest,
    BufferFull,
    Denied,
    HeadwaterClientError,
    NotFound,
    Overloaded,
    ServerError,
    Unavailable,
    UnexpectedAnswer,
)
from client.requests import Boost, Event, Item, RecommendRequest

__all__ = [
    "BadRequest",
    "Boost",
    "BufferFull",
    "Contribution",
    "Denied",
    "Event",
    "EventsAnswer",
    "Experiment",
    "Explanation",
    "FilledUp",
    "HeadwaterClient",
    "HeadwaterClientError",
    "Item",
    "NotFound",
    "Overloaded",
    "RecommendRequest",
    "Recommendations",
    "RecommendedItem",
    "RejectedEvent",
    "ServerError",
    "Unavailable",
    "UnexpectedAnswer",
    "User",
    "UserEvent",
]
