"""Who may do what: what docs/security.md does not allow is denied, and it is said what to do.

One Kafka and one Redis with TLS on, set up by the blocks of that page.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
import uvloop
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from commands.stack import child_environment
from config.api_keys import create_key
from config.daemon import HOST, free_port
from config.errors import ServiceError, StreamError
from config.kafka import kafka_answers
from config.kafka_access import client_options
from config.redis_server import find_redis, redis_answers
from config.services import Services
from config.settings import KafkaSettings, RedisSettings, Settings, load_settings
from config.supervisor import Supervisor
from store.connect import connect
from store.wire import Wire
from streams.dead_reader import DeadReader
from streams.ends import LogEnds
from streams.event import Event
from streams.offsets import LogOffsets
from streams.producer import EventProducer, RecordProducer
from streams.topics import ensure_topics
from tests.conftest import wait_until
from tests.live import click, eventually
from tests.secured import Authority, SecuredKafka, SecuredRedis, documented, grant, tls_redis
from tests.tls_redis import find_tls_redis

T = TypeVar("T")
DENIED = "does not allow this to user '{}': give it the ACL that docs/security.md names"
NO_RIGHT = r"rights that docs/security\.md names"
WRONG = {"password": "not-this-one"}
USERS = ("shop", "catalogue", "worker", "server")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of an authority that nothing here comes from."""
    return Authority(tmp_path_factory.mktemp("stranger")).file


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SecuredKafka]:
    """Topics are made, and rights given, by its administrator."""
    server = SecuredKafka(tmp_path_factory.mktemp("secured") / "kafka", authority, USERS)
    server.start()
    try:
        admin = server.settings("admin", partitions=2)
        ensure_topics(load_settings(kafka=admin))
        grant(admin, documented("kafka-acls"))
        last = LogEnds(server.settings("server"), "events")
        wait_until(lambda: _is_allowed(last), what="the last right given holds")
        yield server
    finally:
        server.stop()


def _is_allowed(ends: LogEnds) -> bool:
    try:
        ends.first_at({0: 0})
    except StreamError:
        return False
    return True


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[SecuredRedis]:
    """Over TLS."""
    folder = tmp_path_factory.mktemp("tls") / "redis"
    with _running(folder, authority, tls_redis()) as server:
        yield server


@pytest.fixture(scope="module")
def plain_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecuredRedis]:
    """The same users without TLS, in the Redis that all tests use."""
    with _running(tmp_path_factory.mktemp("users") / "redis", None, find_redis()) as server:
        yield server


@contextmanager
def _running(folder: Path, authority: Authority | None, binary: str) -> Iterator[SecuredRedis]:
    server = SecuredRedis(folder, documented("users.acl"), authority, binary)
    server.start()
    try:
        yield server
    finally:
        server.stop()


# -- Kafka


def send(kafka: KafkaSettings, topic: str = "events", seconds: float = 20) -> None:
    """One record, confirmed. Raises StreamError."""
    producer = RecordProducer(kafka)
    try:
        producer.publish(topic, b"u", b"{}")
    finally:
        producer.close(seconds)


@pytest.mark.parametrize(
    ("user", "topic"),
    [
        ("shop", "items"),
        ("shop", "events.dead"),
        ("catalogue", "events"),
        ("worker", "events"),
        ("worker", "items"),
        ("worker", "recommendations"),
        ("server", "events.dead"),
    ],
)
def test_who_may_not_write_a_topic(kafka: SecuredKafka, user: str, topic: str) -> None:
    with pytest.raises(StreamError, match=DENIED.format(user)):
        send(kafka.settings(user), topic)


def test_who_may_write_what(kafka: SecuredKafka) -> None:
    for user, topics in {
        "shop": ["events"],
        "catalogue": ["items"],
        "worker": ["events.dead"],
        "server": ["events", "items", "recommendations"],
    }.items():
        for topic in topics:
            send(kafka.settings(user), topic)


def test_a_producer_may_not_read(kafka: SecuredKafka) -> None:
    shop = kafka.settings("shop")
    send(shop)
    with pytest.raises(StreamError, match=DENIED.format("shop")):
        LogEnds(shop, "events").first_at({0: 0, 1: 0})
    with pytest.raises(StreamError, match=DENIED.format("shop")):
        DeadReader(shop, "events.dead").newest(3)
    with pytest.raises(StreamError, match="no topic items, recommendations"):
        LogOffsets(load_settings(kafka=shop)).ends()


def test_a_server_reads_no_dead_letters_unless_it_has_an_admin_port(kafka: SecuredKafka) -> None:
    with pytest.raises(StreamError, match=DENIED.format("server")):
        DeadReader(kafka.settings("server"), "events.dead").newest(3)


def test_what_server_and_worker_ask_of_the_log(kafka: SecuredKafka) -> None:
    send(kafka.settings("shop"))
    server = LogEnds(kafka.settings("server"), "events")
    ends = server.ends()
    assert sum(ends.values()) >= 1
    assert server.first_at(dict.fromkeys(ends, 0))
    worker = LogOffsets(load_settings(kafka=kafka.settings("worker")))
    assert set(worker.ends()) == {"events", "items", "recommendations"}
    assert worker.cluster()


@pytest.mark.parametrize("user", USERS)
def test_nobody_deletes_or_makes_topics_or_gives_rights(kafka: SecuredKafka, user: str) -> None:
    seen = "items" if user == "catalogue" else "events"
    with AdminClient(client_options(kafka.settings(user))) as admin:
        asked = [
            *admin.delete_topics([seen]).values(),
            *admin.delete_records([TopicPartition(seen, 0, -1)]).values(),
            *admin.create_topics([NewTopic("mine", 1, 1)]).values(),
        ]
        for future in asked:
            error = future.exception(20)
            assert isinstance(error, KafkaException)
            assert error.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED
    with pytest.raises(KafkaException) as denied:
        grant(
            kafka.settings(user),
            f"kafka-acls.sh --add --allow-principal User:{user} --operation All --topic events",
        )
    assert denied.value.args[0].code() == KafkaError.CLUSTER_AUTHORIZATION_FAILED


def test_topics_that_are_there_need_no_right_to_make_them(kafka: SecuredKafka) -> None:
    ensure_topics(load_settings(kafka=kafka.settings("worker", dead_topic="events.dead")))
    with pytest.raises(StreamError, match="topic mine cannot be made.*" + DENIED.format("worker")):
        ensure_topics(load_settings(kafka=kafka.settings("worker", events_topic="mine")))


def test_a_shop_feeds_a_file(kafka: SecuredKafka, tmp_path: Path) -> None:
    """It sees one topic of the four, and can make none."""
    file = tmp_path / "clicks.csv"
    file.write_text("timestamp_ms,user_id,item_id,type\n1700000000000,u,i,view\n")
    done = run(f"feed {file}", load_settings(kafka=kafka.settings("shop")), tmp_path)
    assert done.returncode == 0, done.stderr
    done = run(f"feed {file}", load_settings(kafka=kafka.settings("catalogue")), tmp_path)
    assert done.returncode == 1
    assert "topic events cannot be made" in done.stderr
    assert DENIED.format("catalogue") in done.stderr


def test_a_worker_joins_its_own_groups_alone(kafka: SecuredKafka) -> None:
    def joins(user: str, group: str) -> KafkaError | None:
        consumer = Consumer(
            client_options(kafka.settings(user), {"group.id": group, "auto.offset.reset": "latest"})
        )
        consumer.subscribe(["events"])
        limit = time.monotonic() + 20
        try:
            while time.monotonic() < limit:
                message = consumer.poll(0.1)
                if message is not None and (error := message.error()) is not None:
                    return error
                if consumer.assignment():
                    return None
            pytest.fail("neither an assignment nor an error")
        finally:
            consumer.close()

    assert joins("worker", "headwater") is None
    assert joins("worker", "headwater.generation-2") is None
    for user, group in (("worker", "billing"), ("server", "headwater")):
        error = joins(user, group)
        assert error is not None
        assert error.code() == KafkaError.GROUP_AUTHORIZATION_FAILED


WAYS = {
    "wrong password": r"refuses the login of user 'shop': check HEADWATER_KAFKA__USERNAME",
    "unknown user": r"refuses the login of user 'eve': check HEADWATER_KAFKA__USERNAME",
    "another mechanism": r"refuses the login of user 'shop': .*HEADWATER_KAFKA__SASL_MECHANISM",
    "unknown authority": r"no TLS with Kafka .*HEADWATER_KAFKA__CA_FILE .*verify failed",
    "plain at the TLS port": r"speaks TLS: set HEADWATER_KAFKA__TLS=true",
    "a plain login at the TLS port": r"speaks TLS: set HEADWATER_KAFKA__TLS=true",
}
"""Ways to Kafka that lead nowhere, and what is said of them."""


def way(kafka: SecuredKafka, name: str, stranger: Path) -> KafkaSettings:
    shop = kafka.settings("shop")
    return {
        "wrong password": kafka.settings("shop", **WRONG),
        "unknown user": kafka.settings("eve", **WRONG),
        "another mechanism": kafka.settings("shop", sasl_mechanism="PLAIN"),
        "unknown authority": kafka.settings("shop", ca_file=stranger),
        "plain at the TLS port": KafkaSettings(bootstrap=kafka.bootstrap),
        "a plain login at the TLS port": shop.model_copy(update={"tls": False, "ca_file": None}),
    }[name]


@pytest.mark.parametrize("name", WAYS)
def test_who_is_not_let_in_by_kafka(kafka: SecuredKafka, stranger: Path, name: str) -> None:
    bad = way(kafka, name, stranger)
    with pytest.raises(ServiceError, match=WAYS[name]):
        kafka_answers(bad)


@pytest.mark.parametrize("name", ["wrong password", "unknown authority", "plain at the TLS port"])
def test_what_waits_for_kafka_says_why_in_the_end(
    kafka: SecuredKafka, stranger: Path, name: str
) -> None:
    bad = way(kafka, name, stranger)
    with pytest.raises(StreamError, match=WAYS[name]):
        send(bad, seconds=2)
    with pytest.raises(StreamError, match=WAYS[name]):
        LogEnds(bad, "events").ends()


def test_tls_at_a_plain_kafka(services: Services, authority: Authority) -> None:
    plain = KafkaSettings(bootstrap=services.kafka_bootstrap, tls=True, ca_file=authority.file)
    with pytest.raises(ServiceError, match="does not speak TLS: give the port that does"):
        kafka_answers(plain)
    assert kafka_answers(services.kafka_bootstrap)


# -- Redis


LOOP = uvloop.new_event_loop()
"""Of the kind that all processes use; one for all, since TLS takes its time to close."""


@pytest.fixture(scope="module", autouse=True)
def _close_loop() -> Iterator[None]:
    yield
    LOOP.run_until_complete(asyncio.sleep(0.1))
    LOOP.close()


def ask(redis: RedisSettings, question: Callable[[Redis], Awaitable[T]]) -> T:
    """What a client of these settings hears."""

    async def main() -> T:
        client = connect(load_settings(redis=redis))
        try:
            return await question(client)
        finally:
            await client.aclose()

    return LOOP.run_until_complete(main())


WRITES: dict[str, Callable[[Redis], Awaitable[Any]]] = {
    "set": lambda redis: redis.set("hw{1.i0}x", b"1"),
    "unlink": lambda redis: redis.unlink("hw{1.i0}x"),
    "hset": lambda redis: redis.hset("hw{c}", "live", "2"),
    "a script": lambda redis: redis.eval("return redis.call('SET', KEYS[1], 1)", 1, "hw{1.i0}x"),
}
NOBODYS: dict[str, Callable[[Redis], Awaitable[Any]]] = {
    "reading other keys": lambda redis: redis.get("elsewhere"),
    "writing other keys": lambda redis: redis.set("elsewhere", b"1"),
    "a script": lambda redis: redis.eval("return redis.call('SET', KEYS[1], 1)", 1, "elsewhere"),
    "flushall": lambda redis: redis.flushall(),
    "config": lambda redis: redis.config_set("maxmemory", "1"),
    "keys": lambda redis: redis.keys("*"),
    "acl": lambda redis: redis.acl_list(),
    "clients": lambda redis: redis.client_list(),
    "bgsave": lambda redis: redis.bgsave(),
}


class _Users:
    """What each may do; here and there the same."""

    def test_the_reader_reads(self, server: SecuredRedis) -> None:
        reader = server.settings("reader")

        async def read(redis: Redis) -> None:
            assert await redis.get("hw{1.i0}x") is None
            assert await redis.hgetall("hw{c}") == {}
            wire = Wire(redis, 5)
            keys = [b"hw{1.i0}%d" % number for number in range(20_000)]
            many = await asyncio.gather(*(wire.mget(keys) for _ in range(4)))
            assert many == [[None] * len(keys)] * 4

        ask(reader, read)
        assert redis_answers(reader)

    @pytest.mark.parametrize("name", WRITES)
    def test_the_reader_does_not_write(self, server: SecuredRedis, name: str) -> None:
        with pytest.raises(NoPermissionError, match=NO_RIGHT):
            ask(server.settings("reader"), WRITES[name])

    def test_a_script_does_not_write_what_it_does_not_name(self, server: SecuredRedis) -> None:
        hidden = "return redis.call('SET', 'hw{c}', 1)"
        with pytest.raises(ResponseError, match=r"ermissions|can.t access"):
            ask(server.settings("reader"), lambda redis: redis.eval(hidden, 0))

    def test_the_reader_counts_rates(self, server: SecuredRedis) -> None:
        count = "return redis.call('INCR', KEYS[1])"
        assert ask(server.settings("reader"), lambda one: one.eval(count, 1, "hw{c}rate/a")) >= 1

    def test_the_fast_way_is_refused_alike(self, server: SecuredRedis) -> None:
        with pytest.raises(NoPermissionError, match=NO_RIGHT):
            ask(server.settings("reader"), lambda redis: Wire(redis, 5).mget([b"elsewhere"]))

    @pytest.mark.parametrize("name", NOBODYS)
    @pytest.mark.parametrize("user", ["reader", "writer"])
    def test_what_nobody_does(self, server: SecuredRedis, user: str, name: str) -> None:
        with pytest.raises(NoPermissionError, match=NO_RIGHT):
            ask(server.settings(user), NOBODYS[name])

    def test_the_writer_writes(self, server: SecuredRedis) -> None:
        async def write(redis: Redis) -> None:
            for name in ("set", "hset", "a script", "unlink"):
                await WRITES[name](redis)
            await redis.unlink("hw{c}")
            assert [key async for key in redis.scan_iter("hw{1.i0}*")] == []

        ask(server.settings("writer"), write)

    def test_a_wrong_password(self, server: SecuredRedis, tmp_path: Path) -> None:
        wrong = server.settings("reader", "wrong")
        said = "HEADWATER_REDIS__URL, or what HEADWATER_REDIS__PASSWORD_FILE holds"
        with pytest.raises(AuthenticationError, match=said):
            ask(wrong, lambda redis: redis.ping())
        with pytest.raises(AuthenticationError, match=said):
            ask(wrong, lambda redis: Wire(redis, 5).mget([b"hw{c}"]))
        with pytest.raises(ServiceError, match=said):
            redis_answers(wrong)

    def test_nobody_without_a_login(self, server: SecuredRedis) -> None:
        url = (server.settings("x").url or "").replace(f"x:{server.password}@", "")
        with pytest.raises(AuthenticationError, match="HEADWATER_REDIS__URL"):
            ask(server.settings("x", url=url), lambda redis: redis.ping())

    def test_a_password_from_a_file(self, server: SecuredRedis, tmp_path: Path) -> None:
        secret = tmp_path / "redis"
        secret.write_text(f"{server.password}\n")
        url = (server.settings("reader").url or "").replace(f":{server.password}@", "@")
        found = server.settings("reader", url=url, password_file=secret)
        assert redis_answers(found)
        assert ask(found, lambda redis: redis.ping())


class TestUsers(_Users):
    """In the Redis that all tests use, without TLS."""

    @pytest.fixture
    def server(self, plain_redis: SecuredRedis) -> SecuredRedis:
        return plain_redis


class TestUsersOverTls(_Users):
    """The same over TLS."""

    @pytest.fixture
    def server(self, redis: SecuredRedis) -> SecuredRedis:
        return redis

    def test_an_unknown_authority(self, server: SecuredRedis, stranger: Path) -> None:
        for ca_file in (stranger, None):
            bad = server.settings("reader", ca_file=ca_file)
            said = r"(?s)certificate verify failed.*HEADWATER_REDIS__CA_FILE"
            with pytest.raises(RedisConnectionError, match=said):
                ask(bad, lambda redis: redis.ping())
            with pytest.raises(ServiceError, match=said):
                redis_answers(bad)

    def test_plain_at_the_tls_port(self, server: SecuredRedis) -> None:
        url = (server.settings("reader").url or "").replace("rediss:", "redis:")
        with pytest.raises(RedisConnectionError, match="begin with rediss://"):
            ask(RedisSettings(url=url), lambda redis: redis.ping())
        assert not redis_answers(RedisSettings(url=url))


def test_tls_at_a_plain_port(plain_redis: SecuredRedis) -> None:
    url = (plain_redis.settings("reader").url or "").replace("redis:", "rediss:")
    with pytest.raises(RedisTimeoutError, match="check that this port speaks TLS"):
        ask(RedisSettings(url=url, timeout_seconds=0.3), lambda redis: redis.ping())


# -- a deployment


async def test_an_event_goes_all_the_way(
    kafka: SecuredKafka, authority: Authority, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """A worker counts it and a server answers, each with its own login and no right too many."""
    tls = find_tls_redis() is not None
    redis: SecuredRedis = request.getfixturevalue("redis" if tls else "plain_redis")
    cert, key = authority.issue("server")
    keys = tmp_path / "keys.json"
    api_key = create_key(keys, "shop", ("read", "write"), "500/second")
    common: dict[str, Any] = {
        "http": {"port": free_port(), "cert_file": cert, "key_file": key, "keys_file": keys},
        "services": {"data_dir": tmp_path},
        "explore": {"share": 0},
    }
    worker = load_settings(kafka=kafka.settings("worker"), redis=redis.settings("writer"), **common)
    server = load_settings(kafka=kafka.settings("server"), redis=redis.settings("reader"), **common)
    supervisor = Supervisor(tmp_path / "logs", lambda _pid: None)
    trust = ssl.create_default_context(cafile=authority.file)
    url = f"https://{HOST}:{server.http.port}"
    headers = {"X-API-Key": api_key}
    try:
        for name, settings in (("worker", worker), ("serve", server)):
            supervisor.start(
                name, [sys.executable, "-m", "commands", name], child_environment(settings)
            )
        with EventProducer(kafka.settings("shop")) as producer:
            for number, item in enumerate(("tea", "bread", "tea", "jam")):
                at = time.time_ns() // 1_000_000 - 60_000 + number
                producer.send(Event(f"u{number // 2}", item, "view", at))
        async with aiohttp.ClientSession(
            headers=headers, connector=aiohttp.TCPConnector(ssl=trust)
        ) as http:

            async def known() -> Any:
                try:
                    async with http.get(f"{url}/v1/recommendations/u0?n=5") as answer:
                        assert answer.status == 200, await answer.text()
                        return await answer.json()
                except aiohttp.ClientConnectorError:
                    return {"items": []}

            answer = await eventually(
                known, lambda got: "jam" in [i["item_id"] for i in got["items"]], 60
            )
            assert answer["degraded"] is False
            # What comes in through the server goes the same way.
            async with http.post(f"{url}/v1/events", json=click("u9", "tea")) as posted:
                assert posted.status == 202, await posted.text()
            async with http.put(f"{url}/v1/items/tea", json={"title": "Tea"}) as put:
                assert put.status == 202, await put.text()

            async def counted() -> Any:
                async with (
                    http.get(f"{url}/v1/users/u9") as answer,
                    http.get(f"{url}/v1/items/tea") as item,
                ):
                    return answer.status, item.status

            await eventually(counted, lambda got: got == (200, 200), 30)

            async def ready() -> Any:
                async with http.get(f"{url}/health/ready") as answer:
                    return answer.status, await answer.text()

            await eventually(ready, lambda got: got[0] == 200, 30)
            async with http.get(f"{url}/v1/trending", headers={"X-API-Key": "x"}) as refused:
                assert refused.status == 401
            with pytest.raises(aiohttp.ClientError):
                await http.get(url.replace("https:", "http:") + "/health/live")
        async with aiohttp.ClientSession() as mistrusting:
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await mistrusting.get(f"{url}/health/live")
        await _renewed(authority, server.http.port, cert, key)
    finally:
        await supervisor.stop()
    said = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
    print(said)
    for secret in (*kafka.passwords.values(), redis.password):
        assert secret not in said
    for problem in ("no permissions", "uthorization", "does not allow", "Traceback"):
        assert problem not in said


async def _renewed(authority: Authority, port: int, cert: Path, key: Path) -> None:
    """A certificate that takes the place of another one is answered with, without a restart."""

    async def shown() -> bytes:
        context = ssl.create_default_context(cafile=authority.file)
        _, writer = await asyncio.open_connection(HOST, port, ssl=context)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        return bytes(found)

    before = await shown()
    new_cert, new_key = authority.issue("renewed")
    os.replace(new_key, key)
    os.replace(new_cert, cert)
    await eventually(shown, lambda now: now != before)


def run(command: str, settings: Settings, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "commands", *command.split()],
        env=child_environment(settings),
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_worker_that_is_not_let_in_says_so_and_ends(
    kafka: SecuredKafka, plain_redis: SecuredRedis, tmp_path: Path
) -> None:
    settings = load_settings(
        kafka=kafka.settings("worker", **WRONG),
        redis=plain_redis.settings("writer"),
        services={"data_dir": tmp_path},
    )
    done = run("worker", settings, tmp_path)
    assert done.returncode == 1
    assert "refuses the login of user 'worker': check HEADWATER_KAFKA__USERNAME" in done.stderr
    assert "not-this-one" not in done.stdout + done.stderr
    assert plain_redis.password not in done.stdout + done.stderr
