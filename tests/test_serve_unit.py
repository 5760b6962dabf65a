"""The server's parts that need no service: decoding, quantiles, lag, and a store that is away."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from redis.exceptions import ConnectionError as RedisConnectionError
from yarl import URL

from config.errors import BadInput, StreamError
from config.settings import DEFAULT_TENANT
from processors import metrics as worker_metrics
from serving import metrics, publishing
from serving.bodies import Decoder, ItemBody, RecommendBody, query_body
from serving.evaluated import WINDOWS, Counted, Shares, between
from serving.outage import Outage, StoreDown
from serving.publishing import Publisher
from serving.samples import Sample, quantile, samples_of
from serving.shown import title_of
from serving.status import Readings, Status
from store.found import ItemText
from streams.producer import RecordProducer
from tests.live import eventually

_recommend: Decoder[RecommendBody] = Decoder(RecommendBody)


# The first input of a busy machine takes longer than hypothesis likes.
_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _or_field(read: Callable[[], RecommendBody]) -> RecommendBody | str:
    try:
        return read()
    except BadInput as error:
        return str(error.field)


class TestDecoder:
    @_patient
    @given(st.binary(max_size=200))
    def test_any_bytes_are_a_body_or_bad_input(self, body: bytes) -> None:
        assert isinstance(_or_field(lambda: _recommend.read(body)), RecommendBody | str)

    @_patient
    @given(
        st.dictionaries(
            st.sampled_from([*RecommendBody.__struct_fields__, "filter", "boost"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=140),
                lambda inner: st.lists(inner, max_size=3),
                max_leaves=4,
            ),
        )
    )
    def test_what_passes_keeps_the_rules(self, value: dict[str, Any]) -> None:
        body = _or_field(lambda: _recommend.read(msgspec.json.encode(value)))
        if isinstance(body, str):
            assert body == "body" or body.split("[")[0] in value
            return
        assert 1 <= body.n <= 100
        ids = [body.user_id or "x", *(body.session or []), *(body.exclude or [])]
        assert all(1 <= len(one) <= 128 for one in ids)
        assert 0 <= (body.diversity or 0) <= 1
        assert body.exclude_seen in (None, True, False)
        assert body.explain in (True, False)
        assert isinstance(body.scenario, str | None)

    @_patient
    @given(
        st.dictionaries(
            st.sampled_from(["n", "scenario", "exclude_seen", "diversity", "explain", "boost"]),
            st.text(max_size=12)
            | st.sampled_from(["true", "false", "nan", "inf"])
            | st.one_of(st.integers(-1, 101), st.floats(-0.1, 1.1)).map(str),
        )
    )
    def test_a_query_is_a_body_or_bad_input(self, query: dict[str, str]) -> None:
        path = str(URL("/v1/recommendations/u").with_query(query))
        body = _or_field(lambda: query_body(make_mocked_request("GET", path), "u"))
        if isinstance(body, str):
            assert body in query
            return
        assert "boost" not in query
        assert body.user_id == "u"
        assert 1 <= body.n <= 100
        assert body.n == int(query.get("n", "20"))
        assert body.scenario == query.get("scenario")
        assert body.diversity is None or 0 <= body.diversity <= 1
        assert body.diversity == (float(query["diversity"]) if "diversity" in query else None)
        flags = {None: None, "true": True, "false": False}
        assert body.exclude_seen is flags[query.get("exclude_seen")]
        assert body.explain is (query.get("explain") == "true")

    def test_what_is_unknown_is_refused(self) -> None:
        with pytest.raises(BadInput, match="unknown field"):
            _recommend.read(b'{"filters": {}}')

    def test_items_keep_their_attributes(self) -> None:
        reader: Decoder[ItemBody] = Decoder(ItemBody)
        body = reader.read(b'{"attributes": {"a": 1.5, "b": ["x"], "c": null, "d": true}}')
        assert body.attributes == {"a": 1.5, "b": ["x"], "c": None, "d": True}


class TestQuantile:
    def test_interpolates_within_a_bucket(self) -> None:
        buckets = [(0.1, 50.0), (0.2, 100.0), (math.inf, 100.0)]
        assert quantile(buckets, 0.5) == pytest.approx(0.1)
        assert quantile(buckets, 0.75) == pytest.approx(0.15)
        assert quantile(buckets, 1.0) == pytest.approx(0.2)

    def test_beyond_the_last_bound_it_is_that_bound(self) -> None:
        assert quantile([(0.1, 1.0), (math.inf, 100.0)], 0.99) == pytest.approx(0.1)

    def test_nothing_counted(self) -> None:
        assert quantile([], 0.5) is None
        assert quantile([(0.1, 0.0), (math.inf, 0.0)], 0.5) is None

    @_patient
    @given(st.lists(st.floats(0.0001, 9.9), min_size=1, max_size=60), st.floats(0.01, 1))
    def test_lies_in_the_bucket_of_the_true_quantile(
        self, values: list[float], share: float
    ) -> None:
        bounds = [0.01, 0.1, 1.0, 10.0, math.inf]
        buckets = [(bound, float(sum(v <= bound for v in values))) for bound in bounds]
        found = quantile(buckets, share)
        true = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
        at = int(np.searchsorted(bounds, true))
        assert found is not None
        assert ([0.0, *bounds][at] - 1e-9) <= found <= bounds[at] + 1e-9


def _sample(
    at: float, applied: float = 0, lag: float | None = 0, counted: Counted | None = None
) -> Sample:
    return Sample(at, applied, lag=lag, counted=counted or Counted())


def _counted(predictions: float, rule: float, learned: float, served: float) -> Counted:
    """Every hit is on the second place."""
    hits = rule, learned, served
    return Counted(predictions, hits, tuple(hit / 2 for hit in hits))


class TestStatus:
    def test_reads_the_metrics_of_all_processes(self) -> None:
        mine = ["tenant"]
        applied = CounterMetricFamily("headwater_events_applied", "", labels=mine)
        applied.add_metric([DEFAULT_TENANT], 7)
        applied.add_metric(["shoes"], 100)
        lag = GaugeMetricFamily(
            "headwater_consumer_lag_records", "", labels=[*mine, "topic", "partition"]
        )
        lag.add_metric([DEFAULT_TENANT, "events", "0"], 3)
        lag.add_metric([DEFAULT_TENANT, "events", "1"], 4)
        seen = HistogramMetricFamily("headwater_event_visible_seconds", "", labels=mine)
        seen.add_metric([DEFAULT_TENANT], [("0.1", 5), ("+Inf", 7)], sum_value=1)
        both = samples_of([applied, lag, seen], 12.0)
        found = both[DEFAULT_TENANT]
        assert found.applied == 7
        assert found.lag == 7
        assert found.visible == ((0.1, 5.0), (math.inf, 7.0))
        assert found.served == "rule"
        assert (both["shoes"].applied, both["shoes"].lag) == (100, None)
        assert samples_of([], 1.0) == {}

    def test_reads_what_the_workers_count_by_its_name(self) -> None:
        before = samples_of(metrics.collect(), 1.0)[DEFAULT_TENANT]
        worker_metrics.EVALUATED.labels(DEFAULT_TENANT).inc(4)
        for ranking, hits in (("rule", 1), ("learned", 2), ("served", 3)):
            worker_metrics.HITS.labels(DEFAULT_TENANT, ranking).inc(hits)
            worker_metrics.RECIPROCAL.labels(DEFAULT_TENANT, ranking).inc(hits / 4)
        after = samples_of(metrics.collect(), 2.0)[DEFAULT_TENANT]
        found = between(before.counted, after.counted)
        assert found.predictions == 4
        assert found.rankings == {
            "rule": Shares(0.25, 0.0625),
            "learned": Shares(0.5, 0.125),
            "served": Shares(0.75, 0.1875),
        }
        worker_metrics.LEADS.labels(DEFAULT_TENANT).set(1)
        assert samples_of(metrics.collect(), 3.0)[DEFAULT_TENANT].served == "learned"
        worker_metrics.LEADS.labels(DEFAULT_TENANT).set(0)
        assert samples_of(metrics.collect(), 4.0)[DEFAULT_TENANT].served == "rule"

    def test_what_was_served_is_told_with_its_causes(self) -> None:
        before = samples_of(metrics.collect(), 1.0)[DEFAULT_TENANT]
        for seconds in (0.002, 0.004, 0.004, 2.0):
            metrics.observe(DEFAULT_TENANT, "/v1/recommendations/{user_id}", 200, seconds)
        metrics.observe(DEFAULT_TENANT, "/v1/trending", 503, 0.004)
        metrics.observe(
            DEFAULT_TENANT, "/v1/events", 503, 9.0
        )  # nobody is recommended anything by it
        metrics.flush()
        metrics.DEGRADED.labels(DEFAULT_TENANT, "late", "lists").inc(2)
        metrics.DEGRADED.labels(DEFAULT_TENANT, "late", "trending").inc()
        worker_metrics.REJECTED.labels(DEFAULT_TENANT, "too_old").inc(4)
        after = samples_of(metrics.collect(), 11.0)[DEFAULT_TENANT]
        status = Status(lambda: 0)
        status.add(before)
        status.add(after)
        told = status.latest
        assert told["answers_per_second"] == pytest.approx(0.5)
        assert 2.5 <= told["answer_p50_ms"] <= 5
        assert 1000 <= told["answer_p99_ms"] <= 5000
        assert told["failed"] == 1
        assert told["degraded"] == {"late": 3}
        assert told["rejected"]["too_old"] == after.rejected["too_old"] >= 4

    def test_rates_are_those_of_the_latest_seconds(self) -> None:
        status = Status(lambda: 3.5)
        for second in range(20):
            status.add(_sample(100 + second, applied=10_000 + 50.0 * second))
        assert status.latest["events_per_second"] == pytest.approx(50)
        assert status.latest["history"] == [50.0] * 19
        assert status.latest["visible_p50_ms"] is None
        assert status.latest["hit_rate"] is None
        assert status.latest["mrr"] is None

    def test_each_window_has_its_own_predictions(self) -> None:
        """A prediction each second; the rule hits in the first hour, the learned one after it."""
        status = Status(lambda: 3.5)
        hour = 3600
        for second in range(0, 30 * hour + 1, 10):
            rule, learned = min(second, hour), max(0, second - hour)
            status.add(_sample(1e6 + second, counted=_counted(second, rule, learned, learned)))
            if second == hour:
                found = status.evaluation()
                # Not longer than the server has been running.
                assert found["24h"].predictions == found["1h"].predictions == hour
                assert found["24h"].rankings["rule"] == Shares(1, 0.5)
                assert found["24h"].rankings["learned"] == Shares(0, 0)
            if second == hour + 600:
                found = status.evaluation()
                assert found["5m"].rankings["rule"] == Shares(0, 0)
                assert found["1h"].rankings["learned"].hit_rate == pytest.approx(1 / 6)
                assert found["24h"].rankings["learned"].mrr == pytest.approx(0.5 / 7)
            if second == 2 * hour + 90:
                # Seconds are exact; longer windows begin at one of the moments kept each minute.
                found = status.evaluation()
                assert [found[window].predictions for window in WINDOWS] == [
                    300,
                    hour + 30,
                    2 * hour + 90,
                ]
        found = status.evaluation()
        assert [found[window].predictions for window in WINDOWS] == [300, hour, 24 * hour]
        assert found["24h"].rankings["rule"] == Shares(0, 0)
        assert status.latest["hit_rate"] == 1
        assert status.latest["mrr"] == 0.5
        assert status.latest["served"] == "rule"
        assert status.latest["evaluation"]["24h"] == {
            "predictions": 24 * hour,
            "rule": {"hit_rate": 0, "mrr": 0},
            "learned": {"hit_rate": 1, "mrr": 0.5},
            "served": {"hit_rate": 1, "mrr": 0.5},
        }

    def test_a_window_without_predictions_has_no_rates(self) -> None:
        status = Status(lambda: 3.5)
        nothing = Shares(None, None)
        assert status.evaluation()["1h"].rankings["rule"] == nothing
        # What was predicted before this server started is not told apart by time.
        status.add(_sample(1, counted=_counted(100, 9, 9, 9)))
        assert status.evaluation()["24h"].rankings["rule"] == nothing
        status.add(_sample(2, counted=_counted(108, 11, 9, 11)))
        assert status.evaluation()["5m"].rankings["rule"] == Shares(0.25, 0.125)
        for second in range(3, 400):
            status.add(_sample(second, counted=_counted(108, 11, 9, 11)))
        found = status.evaluation()
        assert found["5m"].rankings["rule"] == nothing
        assert found["1h"].rankings["rule"] == Shares(0.25, 0.125)
        text = metrics.exposition(lambda: {"shoes": status.evaluation()}, {}).decode()
        assert 'headwater_hit_rate{ranking="served",tenant="shoes",window="5m"} NaN\n' in text
        assert 'headwater_hit_rate{ranking="served",tenant="shoes",window="1h"} 0.25\n' in text
        assert 'headwater_mrr{ranking="rule",tenant="shoes",window="24h"} 0.125\n' in text
        assert 'headwater_mrr{ranking="learned",tenant="shoes",window="24h"} 0.0\n' in text

    async def test_everybody_who_watches_gets_the_same(self) -> None:
        status, readings = Status(lambda: 3.5), Readings()
        readings.statuses[DEFAULT_TENANT] = status
        running = asyncio.create_task(readings.run())
        try:
            first, second = await asyncio.gather(status.next(), status.next())
        finally:
            running.cancel()
        assert first is second
        assert first["history"] == []
        assert first["lag_seconds"] == 3.5


class TestOutage:
    async def test_a_store_that_fails_is_asked_by_the_probe_alone(self) -> None:
        up = False
        pings = reads = 0

        async def ping() -> None:
            nonlocal pings
            pings += 1
            if not up:
                raise RedisConnectionError("refused")

        async def read(value: int) -> int:
            nonlocal reads
            reads += 1
            if not up:
                raise RedisConnectionError("refused")
            return value

        outage = Outage(ping, 1)
        for _ in range(5):
            with pytest.raises(StoreDown) as down:
                await outage.ask(read, 1)
            assert down.value.cause == "store_unreachable"
        assert reads == 1
        up = True

        async def ask() -> int | None:
            try:
                return await outage.ask(read, 7)
            except StoreDown:
                return None

        assert await eventually(ask, lambda found: found == 7) == 7
        assert pings >= 1
        outage.close()

    async def test_a_store_that_hangs_is_given_up_in_time(self) -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        outage = Outage(hang, 0.05)
        async with asyncio.timeout(5):
            with pytest.raises(StoreDown) as down:
                await outage.ask(hang)
        assert down.value.cause == "store_timeout"
        outage.close()

    async def test_a_request_that_came_late_says_nothing_of_the_store(self) -> None:
        async def hang() -> None:
            await asyncio.Event().wait()

        async def fine() -> int:
            return 1

        now = asyncio.get_running_loop().time
        outage = Outage(fine, 0.4)  # type: ignore[arg-type]
        assert not outage.is_late(now())
        assert not outage.is_late(now() - 0.2)
        assert outage.is_late(now() - 0.35)
        began = now()
        with pytest.raises(StoreDown) as down:
            await outage.ask_since(began - 0.25, hang)
        assert down.value.cause == "late"
        assert now() - began < 0.35
        assert await outage.ask(fine) == 1
        with pytest.raises(StoreDown) as down:
            await outage.ask_since(now() - 0.1, hang)
        assert down.value.cause == "store_timeout"
        with pytest.raises(StoreDown):
            await outage.ask(fine)
        assert await eventually(lambda: _asked(outage, fine), lambda answer: answer == 1) == 1
        outage.close()

    async def test_a_store_that_is_slow_stays_down(self) -> None:
        """A probe must be answered so quickly that several reads in a row are in time."""
        pause = 0.15

        async def ping() -> None:
            await asyncio.sleep(pause)

        async def slow() -> None:
            await asyncio.sleep(1)

        async def fine() -> int:
            return 1

        outage = Outage(ping, 0.2)
        with pytest.raises(StoreDown):
            await outage.ask(slow)
        limit = asyncio.get_running_loop().time() + 1
        while asyncio.get_running_loop().time() < limit:
            assert await _asked(outage, fine) is None
            await asyncio.sleep(0.01)
        pause = 0
        await eventually(lambda: _asked(outage, fine), lambda answer: answer == 1)
        outage.close()

    async def test_other_errors_pass_and_change_nothing(self) -> None:
        async def wrong() -> None:
            raise KeyError("a bug")

        async def fine() -> int:
            return 1

        outage = Outage(wrong, 1)
        with pytest.raises(KeyError):
            await outage.ask(wrong)
        assert await outage.ask(fine) == 1


async def _asked(outage: Outage, read: Callable[[], Awaitable[int]]) -> int | None:
    try:
        return await outage.ask(read)
    except StoreDown:
        return None


@pytest.mark.parametrize("bound", ["records", "bytes"])
async def test_a_publisher_refuses_what_would_block_the_loop(
    bound: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing, "_SECONDS", 0.5)
    if bound == "bytes":
        monkeypatch.setattr(publishing, "_MOST_BYTES", 41_000)
    producer = RecordProducer("127.0.0.1:1")  # nobody listens there
    publisher = Publisher(producer)
    try:
        value, count = (b"v" * 2_000, 10) if bound == "bytes" else (b"v", 10_000)
        batch = [("t", b"k", value, None)] * count
        first = asyncio.create_task(publisher.send(batch))
        second = asyncio.create_task(publisher.send(batch))
        await asyncio.sleep(0)
        with pytest.raises(StreamError, match="does not keep up"):
            await publisher.send(batch[:1])
        results = await asyncio.gather(first, second, return_exceptions=True)
        assert all(isinstance(result, StreamError) for result in results)
    finally:
        with pytest.raises(StreamError):
            await asyncio.to_thread(producer.close, 0.1)


def test_a_title_comes_from_the_catalogue() -> None:
    assert (
        title_of(ItemText("i", b'{"item_id":"i","title":"T","attributes":{"title":"no"}}')) == "T"
    )
    assert title_of(ItemText("i", b'{"item_id":"i"}')) == ""
    assert title_of(ItemText("i", None)) == ""
