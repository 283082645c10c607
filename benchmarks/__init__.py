"""Measurements beside peers, each runnable alone: ``python -m benchmarks.store``. Never part of the tests."""
