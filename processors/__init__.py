"""What is learned: pure folds from columns to increments, and the agents that call them.

`session.py` (and `late.py`, for what comes out of order) places events in sessions;
`cooccurrence.py`, `repeats.py` and `popularity.py` say what each event adds; `fold.py` puts them
together for one batch. `apply.py` takes a batch from decoding to its exact commit, and `worker.py`
is the Faust app around it.
Next: `store/`, which commits the increments.
"""
