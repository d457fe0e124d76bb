"""Adapters to other libraries; each module imports its peer, none is imported by exmem itself."""

__all__: list[str] = []
