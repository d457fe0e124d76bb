"""Format 1: which objects a store is made of, and what their bytes say (`exmem/store/FORMAT.md`)."""

__all__: list[str] = []
