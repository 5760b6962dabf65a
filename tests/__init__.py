"""Tests: against real services (`conftest.py`), one file for each part of the project."""
