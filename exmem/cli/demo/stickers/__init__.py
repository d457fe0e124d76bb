"""The demo data: emoji artwork of several vendors as stickers on photographs, keywords as text."""

from exmem.cli.demo.stickers.build import StickersConfig, build_stickers, notice

__all__ = ["StickersConfig", "build_stickers", "notice"]
