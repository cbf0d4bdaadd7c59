"""Measurements that a person runs by hand: `python -m tests.benchmarks.NAME`. None of them is a timed test."""
