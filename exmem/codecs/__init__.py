"""Payload codecs: how the values of one token set become bytes."""

from exmem.codecs.base import PayloadCodec
from exmem.codecs.lossless import Lossless
from exmem.codecs.patch_jpeg import PatchJpeg
from exmem.codecs.raw import Raw
from exmem.codecs.registry import CODECS, get_codec

__all__ = ["CODECS", "Lossless", "PatchJpeg", "PayloadCodec", "Raw", "get_codec"]
