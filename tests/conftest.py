"""Fixtures that every test may ask for."""

pytest_plugins = ["tests.support.backing", "tests.support.system", "tests.support.shown"]
