"""Prints what each benchmark found beside its times."""

from typing import Any


def pytest_terminal_summary(terminalreporter: Any, config: Any) -> None:
    session = getattr(config, "_benchmarksession", None)
    found = [(bench.name, bench.extra_info) for bench in session.benchmarks if bench.extra_info] if session else []
    if found:
        terminalreporter.section("ratios")
    for name, values in found:
        told = ", ".join(f"{key.replace('_', ' ')} {value:,}" for key, value in values.items())
        terminalreporter.write_line(f"{name.removeprefix('test_').replace('_', ' ')}: {told}")
