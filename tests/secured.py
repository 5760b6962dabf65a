"""A Kafka and a Redis that let in nobody they do not know: TLS, logins and rights, made here.

The rights are those of docs/security.md, read from there: what is documented is what is tested.
"""

from __future__ import annotations

import argparse
import re
import secrets
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import trustme
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from cryptography.hazmat.primitives import serialization

from config.daemon import HOST
from config.kafka import KafkaServer, kafka_answers
from config.kafka_access import client_options
from config.redis_server import RedisServer, redis_answers
from config.settings import KafkaSettings, RedisSettings
from tests.conftest import needed
from tests.tls_redis import find_tls_redis, libraries_of

__all__ = [
    "Authority",
    "SecuredKafka",
    "SecuredRedis",
    "documented",
    "grant",
    "tls_redis",
]

DOCUMENT = Path(__file__).parents[1] / "docs" / "security.md"
MECHANISM = "SCRAM-SHA-512"
ADMIN = "admin"


def documented(name: str) -> str:
    """The block of that kind in docs/security.md."""
    found = re.search(rf"```{re.escape(name)}\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found is not None, f"docs/security.md has no block {name!r}"
    return found[1]


class Authority:
    """Makes certificates, as files in a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self.file = folder / "ca.pem"
        """The authority's own certificate, which clients are told to trust."""
        self._ca.cert_pem.write_to_path(str(self.file))

    def issue(self, name: str, *hosts: str) -> tuple[Path, Path]:
        """Certificate chain and private key (PKCS #8, as Java wants it) for hosts."""
        made = self._ca.issue_cert(*(hosts or (HOST, "localhost")))
        key = serialization.load_pem_private_key(made.private_key_pem.bytes(), None)
        cert, key_file = self._folder / f"{name}.pem", self._folder / f"{name}-key.pem"
        cert.write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return cert, key_file


class SecuredKafka(KafkaServer):
    """One broker whose only way in is TLS with a login; rights are denied unless they are given.

    The controller, which no client reaches, lets in who has a certificate of the authority.
    """

    def __init__(self, folder: Path, authority: Authority, users: Sequence[str]) -> None:
        self.passwords = {user: secrets.token_urlsafe(12) for user in (ADMIN, "broker", *users)}
        properties: dict[str, object] = {}
        scram = [
            f"{MECHANISM}=[name={user},password={password}]"
            for user, password in self.passwords.items()
        ]
        super().__init__(
            folder,
            heap_mb=256,
            properties=properties,
            format_arguments=[part for one in scram for part in ("--add-scram", one)],
        )
        cert, key = authority.issue("kafka")
        keystore = cert.with_name("kafka-keystore.pem")
        keystore.write_bytes(key.read_bytes() + cert.read_bytes())
        ports = self.reserve_ports()
        properties |= {
            "listeners": f"CLIENTS://{HOST}:{ports['broker']},"
            f"CONTROLLER://{HOST}:{ports['controller']}",
            "advertised.listeners": f"CLIENTS://{HOST}:{ports['broker']}",
            "listener.security.protocol.map": "CLIENTS:SASL_SSL,CONTROLLER:SSL",
            "inter.broker.listener.name": "CLIENTS",
            "sasl.mechanism.inter.broker.protocol": MECHANISM,
            "sasl.enabled.mechanisms": MECHANISM,
            f"listener.name.clients.{MECHANISM.lower()}.sasl.jaas.config": (
                "org.apache.kafka.common.security.scram.ScramLoginModule required "
                f'username="broker" password="{self.passwords["broker"]}";'
            ),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": keystore,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": authority.file,
            "listener.name.controller.ssl.client.auth": "required",
            "listener.name.controller.ssl.principal.mapping.rules": "RULE:^.*$/broker/",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:broker;User:{ADMIN}",
            "allow.everyone.if.no.acl.found": "false",
        }
        self._authority = authority

    def settings(self, user: str, **more: Any) -> KafkaSettings:
        """How a user gets in."""
        known = {"password": self.passwords[user]} if user in self.passwords else {}
        return KafkaSettings.model_validate(
            {
                "bootstrap": self.bootstrap,
                "tls": True,
                "ca_file": self._authority.file,
                "username": user,
                **known,
                **more,
            }
        )

    def _answers(self) -> bool:
        return self.running and kafka_answers(self.settings(ADMIN))


def grant(kafka: KafkaSettings, commands: str) -> None:
    """Give the rights that lines of `kafka-acls.sh` give, to a Kafka and as one who may."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--add", action="store_true", required=True)
    parser.add_argument("--allow-principal", required=True)
    for option in ("--operation", "--topic", "--group"):
        parser.add_argument(option, action="append", default=[])
    parser.add_argument("--resource-pattern-type", default="literal")
    bindings = []
    for line in commands.strip().splitlines():
        command, *arguments = shlex.split(line)
        assert command == "kafka-acls.sh"
        said = parser.parse_args(arguments)
        for kind, names in ((ResourceType.TOPIC, said.topic), (ResourceType.GROUP, said.group)):
            bindings += [
                AclBinding(
                    kind,
                    name,
                    ResourcePatternType[said.resource_pattern_type.upper()],
                    said.allow_principal,
                    "*",
                    AclOperation[operation.upper()],
                    AclPermissionType.ALLOW,
                )
                for name in names
                for operation in said.operation
            ]
    with AdminClient(client_options(kafka)) as admin:
        for done in admin.create_acls(bindings).values():
            done.result(20)


def tls_redis() -> str:
    """Path of a Redis that speaks TLS; without one tests are skipped, and fail where CI is true."""
    return needed(
        find_tls_redis(),
        "no Redis here speaks TLS: `make tls-redis` fetches one where there is apt-get",
    )


class SecuredRedis(RedisServer):
    """A Redis with users and their rights, over TLS where an authority is given."""

    def __init__(
        self,
        folder: Path,
        users: str,
        authority: Authority | None,
        binary: str,
        more: Sequence[str] = (),
        password: str | None = None,
    ) -> None:
        """`users` is what stands in its file of users, `PASSWORD` in the place of passwords. `more`
        are arguments.
        """
        self.password = password or secrets.token_urlsafe(12)
        folder.mkdir(parents=True, exist_ok=True)
        acl = folder / "users.acl"
        acl.write_text(users.replace("PASSWORD", self.password))
        arguments = ["--aclfile", str(acl), *more]
        super().__init__(folder, arguments=arguments)
        self._authority, self._binary = authority, binary
        if authority is not None:
            cert, key = authority.issue("redis")
            port = str(self.reserve_ports()["redis"])
            arguments += [
                *("--port", "0", "--tls-port", port, "--tls-auth-clients", "no"),
                *("--tls-cert-file", str(cert), "--tls-key-file", str(key)),
                *("--tls-ca-cert-file", str(authority.file)),
            ]

    def settings(self, user: str, password: str | None = None, **more: Any) -> RedisSettings:
        """How a user gets in."""
        scheme = "redis" if self._authority is None else "rediss"
        ca = None if self._authority is None else self._authority.file
        url = f"{scheme}://{user}:{password or self.password}@{HOST}:{self.ports['redis']}/0"
        return RedisSettings.model_validate({"url": url, "ca_file": ca, **more})

    def _prepare(self) -> tuple[Sequence[str], Mapping[str, str]]:
        command, env = super()._prepare()
        return [self._binary, *command[1:]], {**env, "LD_LIBRARY_PATH": libraries_of(self._binary)}

    def _answers(self) -> bool:
        return self.running and redis_answers(self.settings("admin"))
