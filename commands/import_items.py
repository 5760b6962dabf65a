"""`headwater items`: a whole catalogue from a file, to the topic that keeps it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from commands.csv_events import problem_of
from commands.feed import progress_bar
from commands.item_files import ItemFile
from commands.process import Json, TenantName, print_json, say
from config.settings import load_settings
from config.tenants import named_tenant
from streams.event import Rejection
from streams.producer import RecordProducer
from streams.topics import ensure_topics

__all__ = ["items"]

_SHOWN_REJECTIONS = 10
_TOLD_EVERY = 256


def items(
    file: Annotated[Path, Parameter(allow_leading_hyphen=True)],
    *,
    tenant: TenantName = None,
    json: Json = False,
) -> None:
    """Send a catalogue to Kafka; entries that break a rule are reported and left out.

    An entry takes the place of the one that the catalogue has of that item; others stay.

    Parameters
    ----------
    file
        CSV with the column item_id and maybe title and available; every further column is an
        attribute: numbers and true/false become what they are, "red|blue" a list, anything else is
        text, and empty cells are left out. Or JSON lines, {"item_id": …, "title": …,
        "available": …, "attributes": {…}}. Plain or gzip; - for stdin.
    tenant
        Whose catalogue it is; that of the one that is not named by default.
    """
    settings = named_tenant(load_settings(), tenant)
    source = ItemFile(file)
    topic, largest = settings.kafka.items_topic, settings.kafka.max_record_bytes // 2
    encoder = msgspec.json.Encoder()
    ensure_topics(settings, needed=[topic])
    count = rejected = 0
    begin = time.monotonic()
    with progress_bar() as bar, RecordProducer(settings.kafka) as producer:
        task = bar.add_task(source.name, total=source.size, note="")
        for row in source.rows():
            item = row.item
            value = b"" if isinstance(item, Rejection) else encoder.encode(item)
            if len(value) > largest:
                item = Rejection("too_large", f"{len(value)} bytes; at most {largest} are allowed")
            if isinstance(item, Rejection):
                rejected += 1
                if rejected <= _SHOWN_REJECTIONS:
                    say(f"{source.name}, {problem_of(row.line, item)}")
                continue
            producer.publish(topic, item.item_id.encode(), value)
            count += 1
            if count % _TOLD_EVERY == 0:
                bar.update(task, completed=row.position, note=f"{count:,} items")
        bar.update(task, completed=source.size, note=f"{count:,} items")
    seconds = time.monotonic() - begin
    if rejected > _SHOWN_REJECTIONS:
        say(f"{source.name}: {rejected - _SHOWN_REJECTIONS:,} more were rejected and not sent")
    if json:
        print_json({"items": count, "seconds": round(seconds, 3), "rejected": rejected})
    else:
        print(f"{count:,} items in {seconds:.1f} s, {rejected:,} rejected")
