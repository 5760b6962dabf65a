"""What is answered: HTTP around one ranking, which is pure.

`candidates.py` names what it is made of (`batch.py` for many sessions at once), `rank.py` scores by
the rule (`voting.py`, `choosing.py` are its loops), `features.py` and `model.py` weigh the best
once more by what the stream has taught; `diversity.py`, `filling.py` and `explain.py` are what else
an answer may want. `wanted.py` says after which session and without which items, `recommend.py`
reads what all of them need and calls them, `answers.py` encodes (`shown.py` keeps what items look
like), and `fallback.py` answers while the store does not; `view.py` holds all that for the live
generation; `front.py`, `app.py` and the `routes_*` modules speak HTTP, `console/` is the page at
`/`. `backlog.py` knows how far the store is behind the log.
"""
