"""Payload codecs: how the values of one token set become bytes."""

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
from exmem.codecs.registry import CODECS, codec_name, get_codec
from exmem.codecs.scalar import ScalarQuantisation

__all__ = [
    "CODECS",
    "BFloat16",
    "Float16",
    "Int8",
    "Lossless",
    "PatchAvif",
    "PatchJpeg",
    "PatchJxl",
    "PatchWebp",
    "PayloadCodec",
    "PrincipalComponents",
    "ProductQuantisation",
    "Raw",
    "ScalarQuantisation",
    "codec_name",
    "get_codec",
]
