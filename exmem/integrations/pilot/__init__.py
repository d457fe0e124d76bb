"""PyCIL and PILOT: a memory of bytes in the place of a learner's `_data_memory` and `_targets_memory`.

Two lines in `models/base.py`, for all methods, or the mixin in one method's file; the rest is in the configuration::

    from exmem.integrations.pilot import byte_memory

    @byte_memory
    class BaseLearner(object):

    "memory_size": 2000, "exmem": {"max_bytes": "2MB"},

Limits: `memory_size` (and `memory_per_class`, where `fixed_memory` is true) says how many exemplars a class may have,
as ever; `max_bytes` how many bytes all of them take on disk, strictly. What does not fit is evicted: classes come to
equal bytes, and of each the last chosen goes first. Where `max_bytes` is left out, so many raw images never fill it
(`raw_bytes`). Where `memory_size` is null, bytes alone decide: each class offers all that it has, in the order of
herding.

Selection is the peer's own herding, on the vectors of the network as it is; of classes with fewer images than are asked
for all are taken. The class means are of the decoded exemplars that are held; of a class that holds none they are NaN,
so that nearest-mean evaluation never chooses it.

Data that are paths: the image itself is stored, resized once and cut to its central square, as uint8. `size` says the
shorter side in pixels; left out, it is resized by the data's own test transform, so that nearest means see what they
would see of the file. At replay it comes from RAM, up to `ram_bytes` (256 MB) of decoded images, which forked workers
share; the others are decoded whenever the data set would open the file.

A `place` survives the process. To go on in a new one, build the learner, load its network, and set `_cur_task`,
`_known_classes` and `_total_classes` to what they were after the last phase that was finished; a learner that knows no
classes is refused a place that holds some.
"""

from exmem.integrations.pilot.learner import ByteMemory, byte_memory

__all__ = ["ByteMemory", "byte_memory"]
