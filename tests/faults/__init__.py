"""The trials of tests/faults.py, one file for each."""
