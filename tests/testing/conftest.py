"""The fixtures as a user has them, whether or not the plugin's entry point is installed here."""

from querator.testing.plugin import pytest_runtest_setup, querator_broker, querator_seed

__all__ = ["pytest_runtest_setup", "querator_broker", "querator_seed"]
