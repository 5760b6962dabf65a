"""From measured unit costs to machines: what so many users would take, and what breaks first.

`unit_costs.py` knows what an event, a request, a user and an item cost, measured here or shipped;
`costs_file.py` keeps what `headwater bench` has measured. `demand.py` says what is asked for,
`capacity.py` sizes everything for it, and `limits.py` finds out what is full first as it grows.
Only `costs_file.py`, and `shipped.py` for `make bench`, write to a disk. Next: `commands/plan.py`,
which prints it.
"""
