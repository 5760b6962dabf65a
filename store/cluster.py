"""Redis Cluster, spoken to as if it were one Redis: each command goes to the node of its slot.

All keys of a command lie in one shard, whose prefix is a hash tag (`keys.py`), and so in one slot;
only commands that take any number of keys (MGET, UNLINK, …) are split here. Which node has which
slot is asked once, and again where a node says that a slot has moved, or does not answer.

redis-py's own cluster client stays aside: it sends ASKING and the command that it is meant for over
whichever two connections are free, and where no node answers it raises what is no RedisError.
Below this, each node has a client of redis-py.
"""

from __future__ import annotations

import asyncio
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, cast

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.crc import key_slot
from redis.exceptions import AskError, ClusterDownError, MovedError, ReadOnlyError, RedisError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

__all__ = ["LOST", "Address", "ClusterRedis", "slot_of"]

Address = tuple[str, int]
"""Host and port of a node."""
LOST = (RedisConnectionError, RedisTimeoutError, ClusterDownError, ReadOnlyError)
"""Errors after which another node may have the slot: `LoadingError` is a connection's, too."""
_SPLIT = {"MGET", "DEL", "UNLINK", "EXISTS", "TOUCH"}
_EVERYWHERE = {"SCRIPT", "FLUSHALL", "FLUSHDB", "CONFIG"}
_ANYWHERE = {"INFO", "PING", "DBSIZE", "TIME", "CLUSTER"}
_SCRIPTS = {"EVALSHA", "EVAL"}
"""Commands that name their first key behind a script and the number of keys."""
_HOPS = 5
_NODE = 64
"""A cursor of SCAN has so many bits; above them stands which node is being looked through."""

_Command = tuple[tuple[Any, ...], Mapping[str, Any]]


def slot_of(key: bytes | str) -> int:
    """The slot that a key, or a shard's prefix, belongs to."""
    return key_slot(key.encode() if isinstance(key, str) else key)


class ClusterRedis(Redis):
    """As `redis.asyncio.Redis`, but for transactions. Raises redis.RedisError."""

    def __init__(self, seeds: Sequence[Address], client_of: Callable[[str, int], Redis]) -> None:
        """`seeds` are some of the nodes, `client_of` makes a client for any."""
        self._client_of = client_of
        self._clients = {address: client_of(*address) for address in seeds}
        # Who asks a client for its pool wants to know how values are encoded.
        super().__init__(connection_pool=self._clients[seeds[0]].connection_pool)
        self._owners: dict[int, Address] = {}
        self._version = 0
        self._reading = asyncio.Lock()

    @property
    def version(self) -> int:
        """Changes whenever the nodes were asked who has which slot."""
        return self._version

    def node(self, address: Address) -> Redis:
        """The client of one node."""
        if address not in self._clients:
            self._clients[address] = self._client_of(*address)
        return self._clients[address]

    async def owner(self, slot: int) -> Address:
        """The node that has a slot, as far as is known."""
        if not self._owners:
            await self.reload(self._version)
        address = self._owners.get(slot)
        if address is None:
            await self.reload(self._version)
            address = self._owners.get(slot)
        if address is None:
            raise RedisConnectionError(f"no node of the Redis Cluster has slot {slot}")
        return address

    async def primaries(self) -> list[Address]:
        """The nodes that have slots."""
        if not self._owners:
            await self.reload(self._version)
        return sorted(set(self._owners.values()))

    def moved(self, error: MovedError) -> Address:
        """Believe a node that a slot has moved; returns where it is now."""
        address = (error.host, error.port)
        self._owners[error.slot_id] = address
        return address

    async def reload(self, seen: int, failed: Address | None = None) -> None:
        """Ask who has which slot, unless that was done since `version` was `seen`. A node that has
        just failed is asked last.
        """
        async with self._reading:
            if self._version != seen:
                return
            last: RedisError | None = None
            for address in sorted(self._clients, key=lambda one: one == failed):
                try:
                    node: Any = self._clients[address]
                    found = await node.execute_command("CLUSTER SLOTS")
                except RedisError as error:
                    last = error
                    continue
                self._owners = dict(_owners(found, address))
                self._version += 1
                return
            raise RedisConnectionError(f"no node of the Redis Cluster answers: {last}")

    async def other_owner(self, slot: int, failed: Address, seen: int) -> Address | None:
        """The node that has a slot now, where it is not the one that has just failed."""
        await self.reload(seen, failed)
        address = self._owners.get(slot)
        return None if address == failed else address

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """The answer to one command."""
        word = _word(args)
        if word in _EVERYWHERE:
            answers = [
                await self._clients_command(address, args, options)
                for address in await self.primaries()
            ]
            return answers[0]
        if word in _ANYWHERE:
            return await self._clients_command((await self.primaries())[0], args, options)
        if word in _SPLIT:
            return await self._split(args, options)
        return _raised((await self.execute_all([(args, options)]))[0])

    async def scan(self, cursor: Any = 0, *args: Any, **options: Any) -> Any:
        """One step through the keys of all nodes, one node after the other."""
        nodes = await self.primaries()
        number, within = divmod(int(cursor), 1 << _NODE)
        if number >= len(nodes):  # there were more of them a step ago
            return 0, []
        client = self.node(nodes[number])
        within, found = await client.scan(within, *args, **options)
        if within:
            return number << _NODE | within, found
        return (number + 1 << _NODE if number + 1 < len(nodes) else 0), found

    def pipeline(self, transaction: bool = False, shard_hint: str | None = None) -> Pipeline:
        """Commands that are sent together, to each node those that are its own."""
        if transaction:
            raise RedisError("there are no transactions over the nodes of a Redis Cluster")
        return _ClusterPipeline(self)

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """End all connections."""
        for client in self._clients.values():
            await client.aclose(close_connection_pool)

    async def execute_all(self, commands: Sequence[_Command]) -> list[Any]:
        """The answers to commands, in order; where one failed, its error."""
        slots = [slot_of(_first_key(args)) for args, _ in commands]
        answers: list[Any] = [None] * len(commands)
        parts: dict[Address, list[int]] = {}
        for place, slot in enumerate(slots):
            parts.setdefault(await self.owner(slot), []).append(place)
        seen = self._version

        async def send(address: Address, places: list[int]) -> None:
            found = await self._send(address, [commands[place] for place in places])
            for place, answer in zip(places, found, strict=True):
                answers[place] = answer

        await asyncio.gather(*(send(*part) for part in parts.items()))
        sent_to = {place: address for address, places in parts.items() for place in places}
        for place, answer in enumerate(answers):
            if isinstance(answer, (AskError, *LOST)):
                answers[place] = await self._again(
                    slots[place], commands[place], answer, sent_to[place], seen
                )
        return answers

    async def _again(
        self, slot: int, command: _Command, error: Any, address: Address, seen: int
    ) -> Any:
        """The answer to a command that `address` has not taken, or its error."""
        for _ in range(_HOPS):
            asking = False
            try:
                if isinstance(error, MovedError):  # an AskError, too, by its class
                    address = self.moved(error)
                elif isinstance(error, AskError):
                    address, asking = (error.host, error.port), True
                else:
                    other = await self.other_owner(slot, address, seen)
                    if other is None:
                        return error
                    address = other
            except RedisError as failure:
                return failure
            seen = self._version
            # On one connection: ASKING counts for the next command alone.
            begin: list[_Command] = [(("ASKING",), {})] if asking else []
            error = (await self._send(address, [*begin, command]))[-1]
            if not isinstance(error, (AskError, *LOST)):
                break
        return error

    async def _send(self, address: Address, commands: Sequence[_Command]) -> list[Any]:
        pipeline = self.node(address).pipeline(transaction=False)
        for args, options in commands:
            pipeline.execute_command(*args, **options)
        try:
            found: list[Any] = await pipeline.execute(raise_on_error=False)
        except RedisError as error:
            return [error] * len(commands)
        return found

    async def _split(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        places: dict[int, list[int]] = {}
        for place, key in enumerate(args[1:]):
            places.setdefault(slot_of(key), []).append(place)
        commands = [
            ((args[0], *(args[1 + place] for place in some)), options) for some in places.values()
        ]
        answers = [_raised(answer) for answer in await self.execute_all(commands)]
        if _word(args) != "MGET":
            return reduce(operator.add, answers, 0)
        values: list[bytes | None] = [None] * (len(args) - 1)
        for some, answer in zip(places.values(), answers, strict=True):
            for place, value in zip(some, answer, strict=True):
                values[place] = value
        return values

    async def _clients_command(
        self, address: Address, args: tuple[Any, ...], options: dict[str, Any]
    ) -> Any:
        seen, node = self._version, cast(Any, self.node(address))
        try:
            return await node.execute_command(*args, **options)
        except LOST:
            await self.reload(seen, address)  # the next one does not go there any more
            raise


class _ClusterPipeline(Pipeline):
    """Commands of any nodes, without a transaction."""

    def __init__(self, cluster: ClusterRedis) -> None:
        super().__init__(cluster.connection_pool, cluster.response_callbacks, False, None)
        self._cluster = cluster

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """The answers, in order."""
        commands, self.command_stack = self.command_stack, []
        answers = await self._cluster.execute_all(commands)
        return [_raised(answer) for answer in answers] if raise_on_error else answers


def _word(args: tuple[Any, ...]) -> str:
    """What a command begins with: "SCRIPT LOAD" comes as one argument."""
    first = args[0].decode() if isinstance(args[0], bytes) else str(args[0])
    return first.split()[0].upper()


def _first_key(args: tuple[Any, ...]) -> bytes | str:
    key: bytes | str = args[3 if _word(args) in _SCRIPTS else 1]
    return key


def _raised(answer: Any) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer


def _owners(found: Any, asked: Address) -> Iterable[tuple[int, Address]]:
    for first, last, (host, port, *_), *_replicas in found:
        # A node that was never told its own address says none.
        address = (host.decode() or asked[0], int(port))
        for slot in range(int(first), int(last) + 1):
            yield slot, address
