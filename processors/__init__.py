"""What is learned: pure folds from columns to increments, and the agents that call them.

`session.py` (and `late.py`, for what comes out of order, `lives.py`, for users who are forgotten)
places events in sessions;
`cooccurrence.py`, `repeats.py` and `popularity.py` say what each event adds; `fold.py` puts them
together for one batch. `apply.py` takes a batch from decoding to its exact commit, and
`compaction.py` cuts what has grown; on the way, `learner.py` predicts a sample of its events and
draws a lesson from them (`learning.py` has the step, `standing.py` which ranking leads).
`catalogue.py` and `exposure.py` (and `item_topics.py`, what they share) are the same for the other
topics, and `attribution.py` tells what came of the answers of experiments, from two of them.
`pipeline.py` is all of it for one generation, `following.py` keeps that of one tenant the live
one's, and `worker.py` is the Faust app around those of all tenants (`building.py`: workers of a
generation that is not live yet; `lanes.py`: what waits in all partitions is one batch;
`watchdog.py`: a worker that is stuck ends; `remade.py`: so does one whose topic is another one).
Next: `store/`, which commits the increments.
"""
