"""The one place that knows Redis: a materialised view of the log, true up to stored offsets.

`keys.py` names the keys, `layout.py` says what stands under them; `generations.py` keeps several
views side by side, of which one is live. `vectors.py` packs and unpacks sessions, of which
`latest.py` reads what an answer needs; `lists.py` does the same with neighbours (its loops are in
`list_loops.py`), `taught.py` with the learned ranking; `additions.py` packs what is added to
statistics.
`connect.py` makes the client, that of a Redis Cluster too (`cluster.py`). `writer.py` reads
sessions, commits a batch with its offset (`commit.py`, the scripts in `lua/`) and compacts lists;
`take_back.py` takes sessions back where a node of a cluster has lost what items had got;
`topics.py` drops marks of topics that are gone. `trends.py` keeps what is trending, `exposures.py`
which new items were shown, `attribution.py` what came of the answers of experiments, `forget.py`
forgets users of whom nothing was heard for long, and `rates.py` counts requests. `reader.py` reads
for answers (`found.py`), one MGET a step (`mget.py`, `wire.py`, of a cluster `cluster_wire.py`) for
the requests of a moment (`shared.py`), and gives items small ints (`interner.py`); `search.py`
finds items by the words of their titles (`words.py`); `held.py` is what it still holds when Redis
is away.
Next: `serving/`, which ranks what the reader brings.
"""
