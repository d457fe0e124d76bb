"""Which segments may be cleaned or moved, and whether that gives bytes. Changes nothing."""

from exmem.store.books import CLEANED_FROM, Books
from exmem.store.format.chunks import ENTRY_BYTES, index_bytes
from exmem.store.sizes import noise_bytes

__all__ = ["Cleaning"]


class Cleaning(Books):
    """What the books say of segments with dead rows, of old eras, and of those that are too large or half empty."""

    def cleanable(self) -> dict[int, int]:
        """Return about the bytes that cleaning segments gives, by name, where at least 1/32 of their rows are dead.

        Without the one that the next commit cleans.
        """
        gains, moving = {}, self.staged.moving
        for name, size in self._cleanable.items():
            given = size - self._split_bytes(name)
            if given > 0 and name not in self._damaged and (moving is None or name != moving.name):
                gains[name] = given
        for name, put in self.staged.segments.items():
            info = self.info(name) if put.dead else None
            if info and self.is_cleanable(info) and name not in self._damaged:
                gains[name] = info.dead_size
        return gains

    def misfits(self, target: int) -> list[int]:
        """Return the segments, staged ones too, of an old era, or larger than the target and of more than one row."""
        names = []
        for name in sorted([*self.segments, *self.staged.segments]):
            info = self.info(name)
            misfit = name >> 36 != self.state.era or (info is not None and info.size > target and info.rows > 1)
            if misfit and name not in self._damaged and (name in self.staged.segments or self.is_movable(name)):
                names.append(name)
        return names

    def in_old_eras(self) -> list[int]:
        """Return the segments of old eras that are worth moving for the metadata that goes when all are moved.

        What would be copied is at most 31 times the metadata, which is more than what the segments cost more then; and
        that is there meanwhile.
        """
        worth_moving: list[int] = []
        for number, era in self.state.eras.items():
            if number == self.state.era:
                continue
            names = [number << 36 | segment for segment in era.live.tolist()]
            infos = [self.segments[name] for name in names]
            held = sum(info.size - info.dead_size for info in infos)
            rows, last = sum(info.rows - info.dead_rows for info in infos), self.state.eras[self.state.era].rows
            segments = max(-(-rows // last), -(-held // self.packing_target))
            growth = segments * self._frame_bytes(last) - len(names) * self._frame_bytes(era.rows)
            metadata = self._layout.era_sizes(number, era.rows, era.length)[0]
            movable = all(self.is_movable(name) for name in names) and not self._damaged.intersection(names)
            missing = self.used_bytes + growth + self.reserve() - self.state.budget_bytes
            pays = growth < metadata and missing <= noise_bytes(self.state.target)
            if movable and pays and held < CLEANED_FROM * metadata:
                worth_moving += names
        return worth_moving

    def _split_bytes(self, name: int) -> int:
        """Return what the frames of the segments take that the survivors of one of an old era are parted into."""
        rows, era_rows = self.state.eras[self.state.era].rows, self.state.eras[name >> 36].rows
        if era_rows == rows:
            return 0
        info = self.segments[name]
        segments = -(-(info.rows - info.dead_rows) // rows)
        return max(0, segments * self._frame_bytes(rows) - self._frame_bytes(era_rows))

    def _frame_bytes(self, rows: int) -> int:
        """Return about what a segment takes beside rows and payloads; the entries of its rows are accounted to them."""
        return 100 + len(self._layout.sharded) * (index_bytes(rows) - ENTRY_BYTES * rows)

    def is_movable(self, name: int) -> bool:
        """Whether the survivors of a segment can be copied: the reserve covers those that may share one."""
        info = self.segments[name]
        alive = info.size - info.dead_size
        return alive <= self.state.target or self.used_bytes + alive + 2 * self.reserve(2) <= self.state.budget_bytes

    def staged_with_dead_rows(self) -> list[int]:
        """Return the segments that nothing committed refers to yet, and that hold evicted exemplars."""
        return [name for name, put in self.staged.segments.items() if put.dead and name not in self._damaged]

    def worth_packing(self) -> list[int]:
        """Return the segments with dead rows, those of old eras, and those that are less than half full."""
        number = self.state.era
        names = []
        for name, info in self.segments.items():
            scanty = 2 * info.rows < self.state.eras[number].rows and 2 * info.size < self.state.target
            if (
                name not in self._damaged
                and self.is_movable(name)
                and (info.dead_rows or name >> 36 != number or (scanty and name != self.open_segment))
            ):
                names.append(name)
        return names
