"""What other formats' bodies become: bodies in the shape of their public documentation, with our
own values.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st
from multidict import CIMultiDict

from config.errors import BadInput
from config.settings import load_settings
from serving.adapters import Draft, Refused, Taken, event_of
from serving.adapters_cloudevents import from_cloudevents, is_cloudevent
from serving.adapters_ga4 import from_ga4
from serving.adapters_segment import from_segment
from streams.event import Event, EventRules, Rejection, time_of

NOW = 1_700_000_000_000
SETTINGS = load_settings(events={"names": {"Song Played": "view"}}).events
NAMES = SETTINGS.names
RULES = EventRules(SETTINGS)

SEGMENT: dict[str, Any] = {
    "type": "track",
    "anonymousId": "anon-7",
    "userId": "user-1",
    "event": "Product Viewed",
    "messageId": "ajs-next-1700000000000-aa",
    "timestamp": "2023-11-14T22:13:20.000Z",
    "context": {"ip": "192.0.2.1", "library": {"name": "x", "version": "1"}},
    "properties": {"product_id": "p-1", "sku": "G-32", "name": "Teapot", "price": 18.99},
}
GA4: dict[str, Any] = {
    "client_id": "1234.5678",
    "timestamp_micros": "1700000000000123",
    "non_personalized_ads": False,
    "events": [
        {
            "name": "view_item",
            "params": {
                "currency": "EUR",
                "value": 7.77,
                "session_id": 123,
                "engagement_time_msec": "100",
                "items": [{"item_id": "p-1", "item_name": "Teapot", "index": 0, "price": 9.99}],
            },
        }
    ],
}
EVENT = {"user_id": "user-1", "item_id": "p-1", "type": "view", "timestamp": NOW}
CLOUD: dict[str, Any] = {
    "specversion": "1.0",
    "type": "view",
    "source": "/shop/web",
    "id": "A234-1234",
    "time": "2023-11-14T22:13:20Z",
    "datacontenttype": "application/json",
    "data": {"user_id": "user-1", "item_id": "p-1"},
}

BINARY = {
    "ce_specversion": "1.0",
    "ce_type": "Song%20Played",
    "ce_source": "/shop",
    "ce_id": "e%2D1",
    "ce_time": "2023-11-14T22:13:20Z",
    "content_type": "application/json",
}


def headers_of(**headers: str) -> CIMultiDict[str]:
    return CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})


def changed(body: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {name: value for name, value in {**body, **more}.items() if value is not ...}


def settled(taken: list[Taken]) -> list[Event | tuple[int, str, str]]:
    """Events, and of those refused: index, reason, field."""
    found: list[Event | tuple[int, str, str]] = []
    for one in taken:
        try:
            if isinstance(one, Refused):
                raise one.rejection
            found.append(event_of(one, RULES, NOW))
        except Rejection as rejection:
            found.append((one.index, rejection.reason, str(rejection.field)))
    return found


def segment(body: Any) -> list[Event | tuple[int, str, str]]:
    return settled(from_segment(orjson.dumps(body), NAMES, NOW))


def ga4(body: Any) -> list[Event | tuple[int, str, str]]:
    return settled(from_ga4(orjson.dumps(body), NAMES, NOW))


def cloud(body: Any, **headers: str) -> list[Event | tuple[int, str, str]]:
    told = headers_of(**headers)
    assert is_cloudevent(told)
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    return settled(from_cloudevents(told, data, NAMES))


def structured(body: Any) -> list[Event | tuple[int, str, str]]:
    return cloud(body, content_type="application/cloudevents+json; charset=utf-8")


class TestSegment:
    def test_a_call(self) -> None:
        [event] = segment(SEGMENT)
        assert isinstance(event, Event)
        assert (event.user_id, event.item_id, event.type) == ("user-1", "p-1", "view")
        assert (time_of(event), event.event_id) == (NOW, "ajs-next-1700000000000-aa")
        assert (event.session_id, event.position) == (None, None)

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("Product Clicked", "click"),
            ("Product Added", "cart"),
            ("Product Added to Wishlist", "like"),
            ("Order Completed", "purchase"),
            ("Song Played", "view"),
            ("dislike", "dislike"),
        ],
    )
    def test_names(self, name: str, kind: str) -> None:
        [event] = segment(changed(SEGMENT, event=name))
        assert isinstance(event, Event)
        assert event.type == kind

    @pytest.mark.parametrize("user", [None, "", ...])
    def test_who_is_not_known_is_anonymous(self, user: Any) -> None:
        [event] = segment(changed(SEGMENT, userId=user))
        assert isinstance(event, Event)
        assert event.user_id == "anon-7"

    def test_each_product_of_an_order_is_an_event(self) -> None:
        products = [
            {"product_id": "p-1", "quantity": 1},
            {"product_id": ""},
            {"sku": "S-2"},
            7,
            {"product_id": 45},
        ]
        body = changed(
            SEGMENT, event="Order Completed", properties={"order_id": "o", "products": products}
        )
        found = segment(body)
        assert found[1] == (0, "invalid", "properties.products[1].product_id")
        assert found[3] == (0, "invalid", "properties.products[3]")
        events = [one for one in found if isinstance(one, Event)]
        assert [(event.item_id, event.event_id) for event in events] == [
            ("p-1", "ajs-next-1700000000000-aa:0"),
            ("S-2", "ajs-next-1700000000000-aa:2"),
            ("45", "ajs-next-1700000000000-aa:4"),
        ]
        assert {event.type for event in events} == {"purchase"}
        assert segment(body) == found

    def test_a_long_id_is_the_same_each_time_and_another_for_each_product(self) -> None:
        products = [{"product_id": "p-1"}, {"product_id": "p-2"}]
        for message_id in ("m" * 64, "m" * 100):
            body = changed(SEGMENT, messageId=message_id, properties={"products": products})
            ids = [event.event_id for event in segment(body) if isinstance(event, Event)]
            assert len({*ids}) == 2
            assert all(one is not None and len(one) == 32 for one in ids)
            assert [event.event_id for event in segment(body) if isinstance(event, Event)] == ids

    def test_a_batch_has_calls_of_all_kinds(self) -> None:
        later = changed(SEGMENT, timestamp="2023-11-14T22:23:20Z")
        batch = [
            SEGMENT,
            {"type": "identify", "userId": "u"},
            later,
            5,
            changed(SEGMENT, event="?"),
        ]
        event, *refused = segment({"batch": batch, "sentAt": "2023-11-14T22:13:21Z"})
        assert event == segment(SEGMENT)[0]
        assert refused == [
            (1, "unknown_type", "batch[1].type"),
            (2, "in_future", "batch[2].timestamp"),
            (3, "invalid", "batch[3]"),
            (4, "unknown_type", "batch[4].event"),
        ]

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"userId": None, "anonymousId": None}, "userId"),
            ({"userId": "x" * 129}, "userId"),
            ({"userId": {}}, "userId"),
            ({"event": ...}, "event"),
            ({"timestamp": "yesterday"}, "timestamp"),
            ({"properties": ...}, "properties.product_id"),
            ({"properties": {"products": []}}, "properties.products"),
            ({"properties": {"products": {}}}, "properties.products"),
            ({"messageId": 5}, "messageId"),
            (
                {"properties": {"product_id": "p", "recommendation_id": "r", "position": -1}},
                "properties.position",
            ),
        ],
    )
    def test_what_is_refused_names_its_place(self, change: dict[str, Any], place: str) -> None:
        body = changed(SEGMENT, **change)
        assert segment(body) == [(0, "invalid", place)]
        inside = segment({"batch": [SEGMENT, body]})
        assert inside[1:] == [(1, "invalid", f"batch[1].{place}")]

    def test_without_a_time_it_is_now(self) -> None:
        [event] = segment(changed(SEGMENT, timestamp=...))
        assert isinstance(event, Event)
        assert event.timestamp == NOW

    def test_what_led_to_it(self) -> None:
        told = {"product_id": "p", "recommendation_id": "r-1", "position": 3}
        [event] = segment(changed(SEGMENT, properties=told))
        assert isinstance(event, Event)
        assert (event.recommendation_id, event.position) == ("r-1", 3)
        # A position in some list of the shop's own is none of ours, whatever it is.
        [event] = segment(changed(SEGMENT, properties={"product_id": "p", "position": "third"}))
        assert isinstance(event, Event)
        assert event.position is None

    @pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'{"batch":[]}', b'{"batch":7}'])
    def test_bodies_that_are_none(self, body: bytes) -> None:
        with pytest.raises(BadInput):
            from_segment(body, NAMES, NOW)

    def test_no_more_than_a_request_may_hold(self) -> None:
        body = changed(SEGMENT, properties={"products": [{"product_id": "p"}] * 1001})
        with pytest.raises(BadInput, match="1001 events"):
            segment(body)


class TestGa4:
    def test_a_hit(self) -> None:
        [event] = ga4(GA4)
        assert isinstance(event, Event)
        assert (event.user_id, event.item_id, event.type) == ("1234.5678", "p-1", "view")
        assert (event.timestamp, event.session_id) == (NOW, "123")
        assert event.event_id == "view_item:1700000000000123:0:0"
        assert event.position is None

    @pytest.mark.parametrize(
        ("name", "kind"),
        [
            ("select_item", "click"),
            ("add_to_cart", "cart"),
            ("purchase", "purchase"),
            ("add_to_wishlist", "like"),
        ],
    )
    def test_names(self, name: str, kind: str) -> None:
        [event] = ga4(changed(GA4, events=[{**GA4["events"][0], "name": name}]))
        assert isinstance(event, Event)
        assert event.type == kind

    def test_events_with_several_items(self) -> None:
        items = [{"item_id": "p-1"}, {"item_name": "no id"}, {"item_id": 9}]
        purchase = {"name": "purchase", "params": {"transaction_id": "T 1", "items": items}}
        body = changed(
            GA4,
            user_id="user-9",
            events=[
                {"name": "page_view", "params": {"page_title": "x"}},
                purchase,
                {"name": "scroll", "params": {"items": items[:1]}},
                {**GA4["events"][0], "timestamp_micros": 1_600_000_000_000_000},
                {"params": {}},
                {"name": "view_item", "params": {"items": [3]}},
            ],
        )
        first, bought, unnamed, last, *others = ga4(body)
        assert first == (0, "invalid", "events[0].params.items")
        assert unnamed == (1, "invalid", "events[1].params.items[1].item_id")
        assert isinstance(bought, Event)
        assert isinstance(last, Event)
        assert (bought.user_id, bought.event_id) == ("user-9", "purchase:T 1:0")
        assert (last.item_id, last.event_id) == ("9", "purchase:T 1:2")
        unknown, own_time, *refused = others
        assert unknown == (2, "unknown_type", "events[2].name")
        assert isinstance(own_time, Event)
        assert own_time.timestamp == 1_600_000_000_000
        assert refused == [
            (4, "invalid", "events[4].name"),
            (5, "invalid", "events[5].params.items[0]"),
        ]

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"client_id": ...}, "client_id"),
            ({"client_id": ""}, "client_id"),
            ({"user_id": "x" * 129}, "user_id"),
            ({"timestamp_micros": 9 * 10**17}, "timestamp_micros"),
        ],
    )
    def test_what_is_refused_names_its_place(self, change: dict[str, Any], place: str) -> None:
        [(index, reason, field)] = ga4(changed(GA4, **change))  # type: ignore[misc]
        assert (index, field) == (0, place)
        assert reason in ("invalid", "in_future")

    def test_without_a_time_it_is_now_and_each_time_another(self) -> None:
        [event] = ga4(changed(GA4, timestamp_micros=...))
        assert isinstance(event, Event)
        assert (event.timestamp, event.event_id) == (NOW, None)

    @pytest.mark.parametrize(
        "change", [{"events": []}, {"events": ...}, {"timestamp_micros": "x"}, {"client_id": []}]
    )
    def test_bodies_that_are_none(self, change: dict[str, Any]) -> None:
        with pytest.raises(BadInput) as raised:
            ga4(changed(GA4, **change))
        assert raised.value.field == next(iter(change))


class TestCloudEvents:
    def test_structured(self) -> None:
        [event] = structured(CLOUD)
        assert isinstance(event, Event)
        assert time_of(event) == NOW
        assert (event.event_id, event.type) == ("A234-1234", "view")
        assert (event.user_id, event.item_id) == ("user-1", "p-1")

    def test_what_the_data_says_itself_stands(self) -> None:
        data = {**EVENT, "event_id": "own", "timestamp": 5, "type": "like"}
        assert structured(changed(CLOUD, data=data)) == [
            Event("user-1", "p-1", "like", 5, event_id="own")
        ]
        nothing = {**EVENT, "event_id": None, "timestamp": None, "type": None}
        assert structured(changed(CLOUD, data=nothing)) == structured(CLOUD)

    @pytest.mark.parametrize(("kind", "meant"), [("Song Played", "view"), ("purchase", "purchase")])
    def test_types(self, kind: str, meant: str) -> None:
        [event] = structured(changed(CLOUD, type=kind))
        assert isinstance(event, Event)
        assert event.type == meant

    def test_data_in_base64(self) -> None:
        encoded = base64.b64encode(orjson.dumps(CLOUD["data"])).decode()
        assert structured(changed(CLOUD, data=..., data_base64=encoded)) == structured(CLOUD)

    def test_a_batch(self) -> None:
        bad = changed(CLOUD, data={"user_id": "u"})
        found = cloud(
            [CLOUD, bad, 7, changed(CLOUD, id=...)],
            content_type="application/cloudevents-batch+json",
        )
        assert found[:1] == structured(CLOUD)
        assert found[1:] == [
            (1, "invalid", "[1].data.item_id"),
            (2, "invalid", "[2]"),
            (3, "invalid", "[3].id"),
        ]

    @pytest.mark.parametrize(
        ("change", "reason", "place"),
        [
            ({"specversion": "0.3"}, "invalid", "specversion"),
            ({"source": ...}, "invalid", "source"),
            ({"type": "com.example.seen"}, "unknown_type", "type"),
            ({"time": "noon"}, "invalid", "time"),
            ({"time": "2031-01-01T00:00:00Z"}, "in_future", "time"),
            ({"time": ...}, "invalid", "data.timestamp"),
            ({"datacontenttype": "text/xml"}, "invalid", "datacontenttype"),
            ({"data": ...}, "invalid", "data"),
            ({"data": [1]}, "invalid", "body"),
            ({"data": ..., "data_base64": "%"}, "invalid", "data_base64"),
            ({"data": {**EVENT, "type": "stare"}}, "unknown_type", "data.type"),
        ],
    )
    def test_what_is_refused(self, change: dict[str, Any], reason: str, place: str) -> None:
        assert structured(changed(CLOUD, **change)) == [(0, reason, place)]

    def test_binary_mode(self) -> None:
        [event] = cloud(CLOUD["data"], **BINARY)
        assert isinstance(event, Event)
        assert (event.event_id, event.type, time_of(event)) == ("e-1", "view", NOW)
        [event] = cloud(EVENT, **changed(BINARY, ce_time=...))
        assert event == Event("user-1", "p-1", "view", NOW, event_id="e-1")
        assert cloud({}, **changed(BINARY, ce_time="?")) == [(0, "invalid", "ce-time")]
        late = changed(BINARY, ce_time="2099-01-01T00:00:00Z")
        assert cloud(CLOUD["data"], **late) == [(0, "in_future", "ce-time")]

    @pytest.mark.parametrize(
        ("change", "place"),
        [
            ({"ce_id": ...}, "ce-id"),
            ({"ce_source": ""}, "ce-source"),
            ({"ce_type": ...}, "ce-type"),
            ({"ce_specversion": "2.0"}, "ce-specversion"),
            ({"content_type": "text/plain"}, "Content-Type"),
        ],
    )
    def test_headers_that_are_wrong(self, change: dict[str, Any], place: str) -> None:
        with pytest.raises(BadInput) as raised:
            cloud(EVENT, **changed(BINARY, **change))
        assert raised.value.field == place


@pytest.mark.parametrize("headers", [{}, {"Content-Type": "application/json"}, {"ce-id": "x"}])
def test_all_others_are_no_cloudevents(headers: dict[str, str]) -> None:
    assert not is_cloudevent(CIMultiDict(headers))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
_STRUCTURED = headers_of(content_type="application/cloudevents+json")
_BODIES: list[tuple[Callable[[bytes], list[Taken]], dict[str, Any]]] = [
    (lambda body: from_segment(body, NAMES, NOW), SEGMENT),
    (lambda body: from_segment(body, NAMES, NOW), {"batch": [SEGMENT]}),
    (lambda body: from_ga4(body, NAMES, NOW), GA4),
    (lambda body: from_cloudevents(_STRUCTURED, body, NAMES), CLOUD),
    (lambda body: from_cloudevents(headers_of(**BINARY), body, NAMES), EVENT),
]


def _paths(body: Any) -> list[list[str | int]]:
    """All places in a body."""
    if isinstance(body, dict):
        inner = [[name, *path] for name, value in body.items() for path in _paths(value)]
    elif isinstance(body, list):
        inner = [[n, *path] for n, value in enumerate(body) for path in _paths(value)]
    else:
        inner = []
    return [[], *inner]


@effort(max_examples=300, deadline=None)
@given(which=st.sampled_from(_BODIES), value=_JSON, data=st.data())
def test_whatever_stands_anywhere_is_an_event_or_is_refused(
    which: tuple[Callable[[bytes], list[Taken]], dict[str, Any]], value: Any, data: st.DataObject
) -> None:
    adapter, body = which
    path = data.draw(st.sampled_from(_paths(body)))
    root: list[Any] = [orjson.loads(orjson.dumps(body))]
    place: Any = root
    keys: list[str | int] = [0, *path]
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    try:
        taken = adapter(json.dumps(root[0]).encode())
    except BadInput:
        return
    assert taken
    for one in taken:
        assert isinstance(one, Draft | Refused)
    settled(taken)
