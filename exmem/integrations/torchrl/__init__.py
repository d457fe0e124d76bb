"""A storage of TorchRL replay buffers (`torchrl.data`) that counts bytes: an ExmemStorage in place of a memmap one.

The samplers, writers and transforms stay as they are, priorities included. An entry is an exemplar, its index is the
exemplar's label, and writing over an index evicts the old exemplar and adds the new one; all entries of a `set` do so
together, so give them by `extend` where there are several. A process that is killed between the two has lost the old
ones and not yet committed the new ones, in a place too. Entries are tensordicts, tensorclasses, tensors, or
dicts, lists and tuples of them; all look the same, and what is no tensor is the same in all. The tensor that `image`
names goes through the recipe; all others, and all of them where there is no image, come back bit for bit. What is read
is a copy, also `buffer[:]`: change entries by `buffer[index] = entries`. Samplers of slices read all entries to find
where episodes end: let them do that once a write (`SliceSampler(cache_values=True)`).

**Entries and bytes.** `max_size` is what limits a buffer in TorchRL: without `max_bytes`, the budget is one that so
many raw entries never fill (`raw_bytes`). With `max_bytes` the ring has as many places as the bytes
hold: before a batch that would not fit, `max_size` becomes the number of entries that are held, and the writer begins
again at index 0; a warning tells it where a larger `max_size` was asked for. 1/32 of the budget stays free for entries
that vary. Should later ones be larger nevertheless, the ring shrinks: the entries of the highest indices go, all others
keep their index, `max_size` and `len` say what is left, and a warning how many went. Should they be smaller, it grows
again. New entries are never lost; one that the whole budget does not hold is refused. A TensorDictMaxValueWriter
remembers indices and cannot follow: there `set` raises BudgetError, before anything is changed, and says which
`max_size` fits. At no time is the memory larger than its budget.
"""

from exmem.integrations.torchrl.storage import ExmemCheckpointer, ExmemStorage

__all__ = ["ExmemCheckpointer", "ExmemStorage"]
