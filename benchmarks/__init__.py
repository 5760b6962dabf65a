"""How fast it is: each module measures one thing on services that it starts itself.

`workload.py` makes events, `http_load.py` is the load on the server, `report.py` describes the
machine and the rounds. `headwater bench` calls `ingest.py`, `serve.py`, `freshness.py`, `memory.py`
and `learning.py`. `curve_picture.py` draws what `headwater evaluate` found.
"""
