"""The one place that knows Redis: a materialised view of the log, true up to stored offsets.

`keys.py` names the keys, `layout.py` packs and unpacks what stands under them. `writer.py` reads
sessions, commits a batch with its offset (`commit.py`, the scripts in `lua/`) and compacts lists;
`reader.py` reads for answers, one MGET a step that the requests of a moment share (`shared.py`).
Next: `serving/`, which ranks what the reader brings.
"""
