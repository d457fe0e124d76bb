"""Storage policies of Avalanche 0.6 whose exemplars lie in a memory: a budget of bytes, on disk, ready for a restart.

A limit in samples, `max_size`, is the most exemplars; beside it a budget of bytes holds, by default that of so many raw
samples (values, 320 bytes each and 64 KiB), metadata included. Both hold at every instant; where the bytes allow, the
buffer has exactly `max_size` exemplars. What is stored are samples as they are before their current transforms, so each
replay transforms them anew; a transform must not change a tensor that it is given in place.
"""

from exmem.integrations.avalanche.policies import ImageText, MemoryBuffer, image_text_collate

__all__ = ["ImageText", "MemoryBuffer", "image_text_collate"]
