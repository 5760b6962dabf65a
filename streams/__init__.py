"""What enters: events from Kafka, decoded in batches.

`event.py` is the event and its rules, `item.py` the catalogue's item,
`producer.py` sends events, `topics.py` makes the topics, `ends.py` says where they end;
`tenant_topics.py` knows those of all tenants.
On the way in, `transport.py` makes Faust hand over whole record batches (`client.py` is the client
below it, `fetched.py` what that fetched), `decode.py` turns one into `columns.py`, and what cannot
be read goes to `dead.py`.
Next: `processors/`, which learns from the columns.
"""
