"""Images and pages of exemplars and scores."""

__all__: list[str] = []
