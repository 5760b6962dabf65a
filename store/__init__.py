"""The one place that knows Redis: a materialised view of the log, true up to stored offsets.

`keys.py` names the keys, `layout.py` says what stands under them; `generations.py` keeps several
views side by side, of which one is live. `vectors.py` packs and unpacks sessions, `lists.py`
neighbours (its loops are in `list_loops.py`), `taught.py` the learned ranking.
`writer.py` reads sessions, commits a batch with its offset (`commit.py`, the scripts in `lua/`) and
compacts lists; `topics.py` drops marks of topics that are gone. `trends.py` keeps what is trending,
`exposures.py` what was shown, and `forget.py`
forgets users of whom nothing was heard for long. `reader.py` reads for answers (`found.py`), one
MGET a step (`mget.py`, `wire.py`) for the requests of a moment (`shared.py`), and gives items small
ints (`interner.py`); `held.py` is what it still holds when Redis is away.
Next: `serving/`, which ranks what the reader brings.
"""
