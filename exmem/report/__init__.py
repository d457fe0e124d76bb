"""Images and pages of what is stored and what was measured."""

__all__: list[str] = []
