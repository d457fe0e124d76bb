"""Augmentation of replayed exemplars."""

from exmem.augment.text_exchange import exchange_text, text_partners

__all__ = ["exchange_text", "text_partners"]
