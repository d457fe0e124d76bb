"""Requests, bytes, seconds and RAM of a memory on an object store, as functions of numbers alone.

A memory of N exemplars lies in n = N / R segments of R rows; a segment is one object of the catalog, one of records and
one a sharded modality. A reader fetches up to 32 objects at once, so that what takes k requests at once waits k / 32
times; a writer puts one object after the other. `rounds` counts these waits.
"""

import dataclasses
import math

__all__ = ["AT_ONCE", "CACHE_BYTES", "Cost", "Memory", "Place", "commit", "evict", "open_reader", "open_writer"]
__all__ += ["peak_ram_bytes", "ram_bytes", "read", "refresh", "seconds"]

AT_ONCE, GROUP = 32, 256  # requests of a reader; catalog chunks that it asks for together
PAGE = 1000  # keys of an answer to a list
CACHE_BYTES = 64 * 2**20  # shards that a reader keeps
_DOCUMENT_BYTES, _ROOT_BYTES, _ARRAY_BYTES, _LOCK_BYTES, _LISTED_BYTES = 310, 285, 614, 256, 150


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """What a request waits for, what the link carries, and what this machine needs for each (all measured)."""

    latency_s: float
    link_bytes_s: float = math.inf
    trip_s: float = 0.0  # one request alone, without latency
    request_s: float = 0.0  # one of many at once, without latency
    segment_s: float = 0.0  # to take in what the catalog says of a segment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """N exemplars of so many payload bytes, R to a segment; `row_bytes` is a catalog row after compression."""

    exemplars: int
    payload_bytes: float
    rows: int
    row_bytes: float = 9.3  # a priority is eight bytes that do not compress, a class one or two
    record_bytes: float = 0.1
    modalities: int = 1
    sharded: int = 1
    partly: bool = False  # whether records are read too: some tokens are dropped, or there are extras

    @property
    def segments(self) -> int:
        """n."""
        return math.ceil(self.exemplars / self.rows)

    @property
    def shard_bytes(self) -> float:
        """Payloads, their checksums and the index."""
        return self.rows * (self.payload_bytes + 4 + 16) + 4

    @property
    def document_bytes(self) -> float:
        """What is put at each commit: a byte a segment in base64."""
        return _DOCUMENT_BYTES + 4 / 3 * self.segments

    @property
    def objects(self) -> int:
        """How many a list names."""
        return self.segments * (self.sharded + 2) + self.sharded + 5


@dataclasses.dataclass(frozen=True)
class Cost:
    """What an operation asks of the store; `segments` are those whose catalog is taken in."""

    gets: float = 0
    puts: float = 0
    lists: float = 0
    deletes: float = 0
    get_bytes: float = 0
    put_bytes: float = 0
    list_bytes: float = 0
    rounds: float = 0
    segments: float = 0

    @property
    def requests(self) -> float:
        """All of them."""
        return self.gets + self.puts + self.lists + self.deletes

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


def seconds(cost: Cost, place: Place) -> float:
    """rounds x (latency + trip) + bytes / link + requests x what one of many takes + segments x what one takes."""
    moved = cost.get_bytes + cost.put_bytes + cost.list_bytes
    own = cost.requests * place.request_s + cost.segments * place.segment_s
    return cost.rounds * (place.latency_s + place.trip_s) + moved / place.link_bytes_s + own


def _rounds(requests: float) -> float:
    groups, rest = divmod(requests, GROUP)
    return groups * (GROUP // AT_ONCE) + math.ceil(rest / AT_ONCE)


def _catalog(memory: Memory) -> Cost:
    n = memory.segments
    return Cost(gets=n, get_bytes=memory.exemplars * memory.row_bytes, rounds=_rounds(n), segments=n)


def open_reader(memory: Memory) -> Cost:
    """Root twice, document twice, the metadata of each sharded modality, then n chunks of the catalog."""
    few = 4 + memory.sharded
    sizes = 2 * _ROOT_BYTES + memory.sharded * _ARRAY_BYTES + 2 * memory.document_bytes
    return Cost(gets=few, get_bytes=sizes, rounds=few) + _catalog(memory)


def refresh(memory: Memory, *, changed: bool) -> Cost:
    """Root and document; if that has changed, the document again and n chunks of the catalog."""
    cost = Cost(gets=2, get_bytes=_ROOT_BYTES + memory.document_bytes, rounds=2)
    return cost + Cost(gets=1, get_bytes=memory.document_bytes, rounds=1) + _catalog(memory) if changed else cost


def read(memory: Memory, batch: int, *, cached: float = 0.0) -> Cost:
    """n x (1 - (1 - 1 / n)^B) segments, each as a whole, but for the share that is cached; then the document."""
    n = memory.segments
    fetched = n * (1 - (1 - 1 / n) ** batch) * (1 - cached)
    if fetched < 0.01:
        return Cost()
    kinds = memory.sharded + memory.partly
    sizes = fetched * (memory.sharded * memory.shard_bytes + memory.partly * memory.rows * memory.record_bytes)
    rounds = kinds * math.ceil(fetched / AT_ONCE) + 1
    return Cost(gets=fetched * kinds + 1, get_bytes=sizes + memory.document_bytes, rounds=rounds)


def commit(memory: Memory, count: int, *, open_rows: int) -> Cost:
    """Add and commit: segments are put one object after the other, the open one once more; then the document.

    Full segments go when they are added, each after a look at the lock; the commit puts the rest, and what does not fit
    into the open segment into a new one.
    """
    full = math.ceil(count / memory.rows) - 1
    segments = full + 1 + (open_rows + count - full * memory.rows > memory.rows)
    whole = memory.payload_bytes + 4 + memory.row_bytes + memory.record_bytes
    puts, gets = segments * (memory.sharded + 2) + 1, full + 2
    sizes = (open_rows + count) * whole + segments * memory.sharded * (16 * memory.rows + 4) + memory.document_bytes
    return Cost(gets=gets, puts=puts, get_bytes=gets * _LOCK_BYTES, put_bytes=sizes, rounds=gets + puts)


def evict(memory: Memory, *, emptied: int = 0) -> Cost:
    """The lock twice, the document; then the objects of segments that hold nothing any more."""
    gone = emptied * (memory.sharded + 2)
    return Cost(2, 1, 0, gone, 2 * _LOCK_BYTES, memory.document_bytes, 0, 3 + gone)


def open_writer(memory: Memory) -> Cost:
    """What a reader asks for, the lock, and three lists of everything."""
    lists = 3 * math.ceil(memory.objects / PAGE)
    listed = 3 * memory.objects * _LISTED_BYTES
    lock = Cost(4, 1, lists, 0, 3 * _LOCK_BYTES + _ROOT_BYTES, _LOCK_BYTES, listed, 5 + lists)
    return open_reader(memory) + lock


def ram_bytes(memory: Memory) -> float:
    """What a reader holds: slot twice 8, class 4, priority 8, place 8; a modality 2 (tokens), a sharded one 4."""
    return memory.exemplars * (36 + 2 * memory.modalities + 4 * memory.sharded)


def peak_ram_bytes(memory: Memory) -> float:
    """While it is opened: the table of 64-bit columns three times (as read, put together, sorted), and the columns."""
    columns = 4 + memory.modalities + memory.sharded
    return memory.exemplars * 3 * 8 * columns + ram_bytes(memory)
