"""The table of faults: real processes killed, frozen, cut off and filled up while events and
requests flow. `python -m tests.chaos --help`; docs/reliability.md has the figures.

    table.py       every fault by its name
    faults_*.py    what each one does
    run.py         one run: traffic, fault, healing, lag 0, comparison
    world.py       the services that runs share or have of their own
    deployment.py  workers and server, with a proxy on each of their connections
    proxy.py       delays, holds and resets connections
    traffic.py     events and requests at a steady rate
    checking.py    the log, and what the store holds against it
    row.py         what came of a run
"""
