"""Completion of the command line by shells."""

__all__: list[str] = []
