"""Finding a payload codec by its name or configuration."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numcodecs
from numpy.typing import DTypeLike

from exmem.codecs.base import PayloadCodec
from exmem.codecs.bfloat16 import BFloat16
from exmem.codecs.float16 import Float16
from exmem.codecs.int8 import Int8
from exmem.codecs.lossless import Lossless
from exmem.codecs.patch_avif import PatchAvif
from exmem.codecs.patch_jpeg import PatchJpeg
from exmem.codecs.patch_jxl import PatchJxl
from exmem.codecs.patch_webp import PatchWebp
from exmem.codecs.pq import ProductQuantisation
from exmem.codecs.principal import PrincipalComponents
from exmem.codecs.raw import Raw
from exmem.codecs.scalar import ScalarQuantisation
from exmem.errors import CodecError, CodecOptionError
from exmem.registry import Registry

__all__ = ["CODECS", "codec_name", "get_codec"]

_OURS = (
    BFloat16,
    Float16,
    Int8,
    Lossless,
    PatchAvif,
    PatchJpeg,
    PatchJxl,
    PatchWebp,
    PrincipalComponents,
    ProductQuantisation,
    Raw,
    ScalarQuantisation,
)
CODECS: Registry[PayloadCodec] = Registry("codec", {codec.codec_id: codec for codec in _OURS}, error=CodecOptionError)
"""Payload codecs by their identifier."""
for _codec in _OURS:  # not those of entry points: their modules import exmem, which is being imported
    numcodecs.register_codec(_codec)


def codec_name(name: str) -> str:
    """Return the name under which a codec is registered.

    Parameters
    ----------
    name : str
        The same, or without the prefix `exmem.`, which goes before a name without it; an unknown one is returned as is.

    Examples
    --------
    >>> codec_name("raw"), codec_name("exmem.raw"), codec_name("unknown")
    ('exmem.raw', 'exmem.raw', 'unknown')
    """
    return f"exmem.{name}" if f"exmem.{name}" in CODECS else name


def get_codec(
    config: Mapping[str, Any], *, shape: Sequence[int] | None = None, dtype: DTypeLike | None = None
) -> PayloadCodec:
    """Make a codec from its JSON configuration.

    Parameters
    ----------
    config : mapping
        `{"id": name, ...}`; the prefix `exmem.` of the name may be left out.
    shape : sequence of int, optional
        Shape of a token, when the configuration does not say.
    dtype : dtype-like, optional
        dtype of the values, when the configuration does not say.

    Raises
    ------
    CodecOptionError
        If the name is unknown, an option is unknown, the codec cannot take such tokens, or its `get_config` does not
        say all of that again.
    """
    options = dict(config)
    name = codec_name(str(options.pop("id", "")))
    codec_type = CODECS[name]
    if shape is not None:
        options.setdefault("shape", tuple(shape))
    if dtype is not None:
        options.setdefault("dtype", dtype)
    try:
        codec: PayloadCodec = codec_type(**options)
    except CodecError as error:
        raise CodecOptionError(str(error)) from error
    except (TypeError, ValueError, OverflowError, AttributeError) as error:
        known = sorted(set(inspect.signature(codec_type).parameters) - {"shape", "dtype"})
        strange = sorted(set(map(str, options)) - {*known, "shape", "dtype"})
        what = f"unknown options {strange}; it knows {known}" if strange else f"an option cannot be used ({error})"
        raise CodecOptionError(f"{name}: {what}") from error
    recorded = codec.get_config()
    if recorded.get("id") != name:
        says = recorded.get("id")
        raise CodecOptionError(f"{name}: get_config says id {says!r}; let its codec_id be the name that it has")
    defaults = CODECS.options(name)
    if lacking := sorted(key for key, value in options.items() if key not in recorded and value != defaults[key]):
        raise CodecOptionError(f"{name}: get_config leaves out {lacking}; what it encodes could not be decoded later")
    return codec
