"""Budgets in bytes: reading them, writing them, sharing them out."""

import re
from collections.abc import Mapping

from exmem.errors import SchemaError

__all__ = ["class_quotas", "format_bytes", "parse_bytes"]

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)\s*\Z", re.IGNORECASE)


def parse_bytes(size: int | str) -> int:
    """Read a size in bytes; a fraction of a byte is cut off.

    Parameters
    ----------
    size : int or str
        Bytes, or text such as `"64MB"` (10^6) or `"1.5 GiB"` (2^30).

    Returns
    -------
    int
        Bytes, 0 or more.

    Raises
    ------
    SchemaError
        If it is negative, not a whole number or not such a text.

    Examples
    --------
    >>> parse_bytes("64MB"), parse_bytes("1.5 KiB"), parse_bytes(10)
    (64000000, 1536, 10)
    """
    if isinstance(size, int) and not isinstance(size, bool):
        if size < 0:
            raise SchemaError(f"a size in bytes must be 0 or more, got {size}")
        return size
    match = _SIZE.match(size) if isinstance(size, str) else None
    if match is None or match[2].lower() not in _UNITS:
        raise SchemaError(f"expected bytes as an integer or text such as '64MB' or '1.5 GiB', got {size!r}")
    whole, _, fraction = match[1].partition(".")
    digits = int((whole or "0") + fraction)
    factor: int = 10 ** len(fraction)
    return digits * _UNITS[match[2].lower()] // factor


def format_bytes(size: int) -> str:
    """Write a size for people: exact below 10 kB, else three digits with a decimal unit.

    Parameters
    ----------
    size : int
        Bytes.

    Returns
    -------
    str
        Such as `"9,120 B"` or `"1.50 MB"`.

    Examples
    --------
    >>> format_bytes(9120), format_bytes(1_500_000)
    ('9,120 B', '1.50 MB')
    """
    if abs(size) < 10_000:
        return f"{size:,} B"
    value, unit = size / 1e3, "kB"
    for larger in ("MB", "GB", "TB"):
        if abs(value) < 999.5:
            break
        value, unit = value / 1e3, larger
    decimals = 2 if abs(value) < 10 else 1 if abs(value) < 100 else 0
    return f"{value:.{decimals}f} {unit}"


def class_quotas(used: Mapping[int, int], total: int) -> dict[int, int]:
    """Share `total` bytes equally among classes; what a class does not use is lent to the others.

    Parameters
    ----------
    used : mapping of int to int
        Bytes that each class would like to use, 0 or more.
    total : int
        Bytes to share out.

    Returns
    -------
    dict of int to int
        Bytes each class may use; at most what it would like to use. The sum is `total`, or the sum of `used` where
        that is smaller. Bytes that do not divide go to the lowest labels.

    Notes
    -----
    Max-min fairness by progressive filling, O(C log C).

    Examples
    --------
    >>> class_quotas({0: 10, 1: 100, 2: 100}, 101)
    {0: 10, 1: 46, 2: 45}
    """
    quotas: dict[int, int] = {}
    left = max(0, total)
    waiting = sorted(used, key=lambda label: (used[label], label))
    while waiting and used[waiting[0]] * len(waiting) <= left:
        label = waiting.pop(0)
        quotas[label] = used[label]
        left -= used[label]
    if waiting:
        share, rest = divmod(left, len(waiting))
        for rank, label in enumerate(sorted(waiting)):
            quotas[label] = share + (rank < rest)
    return {label: quotas[label] for label in sorted(quotas)}
