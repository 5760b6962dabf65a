"""Tests: against real services (`conftest.py`), one file for each part of the project.

`oracle.py` says slowly what must come out; `chaos/` is the table of faults.
"""
