"""A connection to Kafka that was reset, on the loop that workers run on."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from config.services import Services
from streams.connection import Connection, use_connections


def test_a_request_on_a_reset_connection_fails_as_aiokafka_expects(services: Services) -> None:
    use_connections()
    host, _, port = services.kafka_bootstrap.partition(":")

    async def said(turns: int) -> str:
        """What comes of a request so many turns of the loop after the reset."""
        connection = await create_conn(host, int(port))
        assert isinstance(connection, Connection)
        assert (await connection.send(MetadataRequest([]))).brokers
        connection._writer.transport.abort()  # noqa: SLF001 - what a reset does
        for _ in range(turns):
            await asyncio.sleep(0)
        try:
            # In the first turns, nobody knows of it yet: the request waits for its answer.
            await connection.send(MetadataRequest([]))
        except KafkaConnectionError as error:
            return str(error)
        pytest.fail("a broken connection answers")

    async def ask() -> None:
        told = [await said(turns) for turns in range(6)]
        print(told)
        # In between, the transport is closed and aiokafka does not know it.
        assert any("broken: unable to perform" in one for one in told)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ask())
