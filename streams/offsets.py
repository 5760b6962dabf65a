"""Where the log's topics begin and end, and where a moment lies in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from confluent_kafka import KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from config.errors import SettingsError, StreamError
from config.kafka_access import Refusals, address_of, client_options
from config.settings import Settings

__all__ = ["LogOffsets", "Offsets", "read_origin"]

Offsets = dict[str, list[int]]
"""Offsets by topic and partition."""
Origin = str | int | datetime
"""`earliest`, `latest`, an offset of every partition, or a moment with its time zone."""

_SECONDS = 10.0
_EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]
_LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]


def read_origin(text: str) -> Origin:
    """What `earliest`, `latest`, an offset or an RFC 3339 time stand for. Raises SettingsError."""
    if text in ("earliest", "latest"):
        return text
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise SettingsError(
            f"--from {text!r} is neither earliest nor latest nor an offset nor an RFC 3339 time as "
            "2026-01-31T12:00:00Z, with its time zone"
        )
    return moment


class LogOffsets:
    """Asks Kafka; every method waits for its answer and raises StreamError where none comes."""

    def __init__(self, settings: Settings) -> None:
        kafka = settings.kafka
        self._address = address_of(kafka)
        self._refusals = Refusals(kafka)
        self._admin = AdminClient(client_options(kafka, {"error_cb": self._refusals}))
        self._events = kafka.events_topic
        self._recommendations = kafka.recommendations_topic
        self._topics = (kafka.events_topic, kafka.items_topic, kafka.recommendations_topic)

    def ends(self) -> Offsets:
        """The next offset of every partition."""
        return self._ask(self._topics, _LATEST)

    def begins(self) -> Offsets:
        """The first offset that is still there, of every partition."""
        return self._ask(self._topics, _EARLIEST)

    def starts(self, origin: Origin) -> Offsets:
        """From where a generation reads on: events from the origin on, what was shown from that
        time on, and always the whole catalogue.
        """
        starts = self.begins()
        events, shown = self._events, self._recommendations
        if origin == "latest":
            starts |= self._ask((events, shown), _LATEST)
        elif isinstance(origin, int):
            last = self._ask((events,), _LATEST)[events]
            starts[events] = [
                min(max(origin, begin), end)
                for begin, end in zip(starts[events], last, strict=True)
            ]
        elif isinstance(origin, datetime):
            moment = OffsetSpec.for_timestamp(int(origin.timestamp() * 1000))
            ends = self._ask((events, shown), _LATEST)
            for topic, found in self._ask((events, shown), moment).items():
                # Nothing is as late as that.
                starts[topic] = [
                    end if at < 0 else at for at, end in zip(found, ends[topic], strict=True)
                ]
        return starts

    def cluster(self) -> str:
        """The id of the Kafka cluster, to which offsets belong."""
        try:
            found = self._admin.list_topics(timeout=_SECONDS).cluster_id
        except KafkaException as error:
            raise self._unanswered(error) from None
        return found or ""

    def forget_group(self, group: str) -> None:
        """Delete a consumer group that nobody needs any more, if that can be done."""
        for done in self._admin.delete_consumer_groups([group]).values():
            done.exception(_SECONDS)

    def _ask(self, topics: Sequence[str], spec: OffsetSpec) -> Offsets:
        try:
            known = self._admin.list_topics(timeout=_SECONDS).topics
            missing = [topic for topic in topics if topic not in known or known[topic].error]
            if missing:
                raise StreamError(
                    f"Kafka at {self._address} has no topic {', '.join(missing)}: look at the "
                    "settings kafka.*_topic, or make them with `headwater up`"
                )
            partitions = [
                TopicPartition(topic, number)
                for topic in topics
                for number in range(len(known[topic].partitions))
            ]
            asked = self._admin.list_offsets(
                dict.fromkeys(partitions, spec), request_timeout=_SECONDS
            )
            return _by_topic((at, done.result(_SECONDS).offset) for at, done in asked.items())
        except (KafkaException, TimeoutError) as error:
            raise self._unanswered(error) from None

    def _unanswered(self, error: Exception) -> StreamError:
        self._admin.poll(0)
        advice = "check the address and whether it runs"
        said = (
            self._refusals.explain(error.args[0], advice)
            if isinstance(error, KafkaException)
            else f"no answer: {self._refusals.said or advice}"
        )
        return StreamError(f"Kafka at {self._address} does not tell its offsets: {said}")


def _by_topic(found: Iterable[tuple[TopicPartition, int]]) -> Offsets:
    offsets: Offsets = {}
    for at, offset in sorted(found, key=lambda one: (one[0].topic, one[0].partition)):
        offsets.setdefault(at.topic, []).append(offset)
    return offsets
