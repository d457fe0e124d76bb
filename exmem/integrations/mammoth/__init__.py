"""The replay buffer of mammoth, under a budget of bytes: give `Buffer` to its methods in the place of their own.

What changes in mammoth is one line: at the end of its `utils/buffer.py`, for all methods, or the import in one's file::

    from exmem.integrations.mammoth import Buffer

A limit in samples is the most exemplars that are held: raw, a colour image of 32 pixels takes 3,072 bytes and some 60
more, where mammoth keeps 12,288. Where `max_bytes` is left out, the budget is one that so many raw samples never fill
(`raw_bytes`). Both limits hold at every instant, and whichever is reached first.
"""

from exmem.integrations.mammoth.buffer import Buffer

__all__ = ["Buffer"]
