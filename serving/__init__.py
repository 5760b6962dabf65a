"""What is answered: HTTP around one ranking, which is pure.

`candidates.py` names what it is made of (`batch.py` for many sessions at once), `rank.py` scores by
the rule (`voting.py`, `choosing.py` are its loops), `features.py` and `model.py` weigh the best
once more by what the stream has taught; `diversity.py`, `filling.py` and `explain.py` are what else
an answer may want. `wanted.py` says after which session and without which items, `filters.py` and
`judge.py` what may be shown at all, `scenarios.py` keeps presets of such wishes, `recommend.py`
reads what all of them need and calls them, `answers.py` encodes (`shown.py` keeps what items look
like), and `fallback.py` answers while the store does not; `view.py` holds all that for the live
generation; `front.py`, `app.py` and the `routes_*` modules speak HTTP, over TLS with `tls.py`,
`tenants.py` keeps an application of all that for each tenant, `console/` is the page at `/`.
`openapi.py` makes the description of the API out of types and of the table of
`openapi_operations.py`, `docs/` is the page at `/docs`. `backlog.py` knows how far the store is
behind the log. `experiments.py` draws users into variants, `exposures.py` tells the log what was
shown, `proportions.py` and `experiment_report.py` say what came of it (`outcomes.py` reads it).
"""
