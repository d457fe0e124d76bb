"""Options and profiles of the tests."""

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "default", max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
settings.register_profile("long", max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", default="200", help="how often a writing process is killed")
    parser.addoption("--readers", default="4", help="processes that read beside a writer")
    parser.addoption("--seconds", default="4", help="how long they read")
