"""Sizes in bytes: reading and writing them."""

import re
from typing import SupportsIndex

from exmem.errors import SchemaError
from exmem.tokens.checks import index_of, shown, whole_number

__all__ = ["format_bytes", "parse_bytes"]

_DECIMAL = {letter: 1000**power for power, letter in enumerate(("", "k", "m", "g", "t"))}
_BINARY = {f"{letter}i": 1024**power for power, letter in enumerate(("k", "m", "g", "t"), start=1)}
_UNITS = _DECIMAL | _BINARY
_SIZE = re.compile(r"\s*([0-9]{1,30}(?:\.[0-9]{1,30})?|\.[0-9]{1,30})\s*([kmgt]?i?)b?\s*\Z", re.IGNORECASE)


def parse_bytes(size: SupportsIndex | str) -> int:
    """Read a size in bytes; a fraction of a byte is cut off.

    Parameters
    ----------
    size : int or str
        Bytes (a NumPy integer too), or text: `"64k"`, `"64kB"`, `"1M"`, `"1G"`, `"2T"` are powers of 1000, `"64Ki"`,
        `"64KiB"`, `"1.5 GiB"` powers of 1024; upper or lower case.

    Returns
    -------
    int
        Bytes, 0..2^63 - 1.

    Raises
    ------
    SchemaError
        If it is negative, beyond that, not a whole number or not such a text.

    Examples
    --------
    >>> parse_bytes("64MB"), parse_bytes("64M"), parse_bytes("1.5 KiB"), parse_bytes(10)
    (64000000, 64000000, 1536, 10)
    """
    if isinstance(size, str):
        match = _SIZE.match(size)
        if match is None or match[2].lower() not in _UNITS:
            raise SchemaError(_expected(size))
        whole, _, fraction = match[1].partition(".")
        factor: int = _UNITS[match[2].lower()]
        number = int((whole or "0") + fraction) * factor // int("1" + "0" * len(fraction))
    elif (index := index_of(size)) is not None:
        number = index
    else:
        raise SchemaError(_expected(size))
    return whole_number(number, "a size in bytes")


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


def _expected(size: object) -> str:
    return f"expected bytes as an integer or text such as '64MB' or '1.5 GiB', got {shown(size)}"
