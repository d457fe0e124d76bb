"""The demo: the main job on real data that comes from PyPI packages."""

__all__: list[str] = []
