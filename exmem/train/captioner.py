"""Captions of images by a model of transformers that makes text of them."""

import inspect
import os
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from exmem.backbones.loading import pretrained
from exmem.errors import DataError, SchemaError

__all__ = ["PROMPT", "Captioner"]

PROMPT = "Write a short description for the image."  # one of those that InstructBLIP was tuned with (Dai et al. 2023)
"""What a model is asked that takes instructions."""

_PROMPTLESS = frozenset({"blip", "git", "pix2struct", "vision-encoder-decoder"})  # describe an image unasked
_SIDE = 1024  # images are averaged before a model resizes them where both sides are twice this and more
_PROCESSOR = ("image_processor", "tokenizer")


class Captioner:
    """A model that describes images, always alike: the likeliest token each time.

    The prompt is that of `PROMPT` where the model takes instructions and none is given.
    """

    side = _SIDE

    def __init__(
        self,
        name: str | os.PathLike[str],
        *,
        prompt: str | None = None,
        max_new_tokens: int = 40,
        device: str = "auto",
        dtype: str = "auto",
    ) -> None:
        from transformers import AutoConfig, AutoModelForImageTextToText

        config = pretrained(AutoConfig, name)
        if type(config) not in AutoModelForImageTextToText._model_mapping:
            raise DataError(
                f"{name}: expected a model that makes text of images, got {config.model_type!r}; choose one such as "
                "Salesforce/instructblip-vicuna-7b or Salesforce/blip-image-captioning-base"
            )
        self._kind = str(config.model_type)
        if prompt and self._kind == "vision-encoder-decoder":
            raise SchemaError(f"--prompt: {name} takes none; leave it out")
        self.prompt = prompt if prompt is not None or self._kind in _PROMPTLESS else PROMPT
        self._most, self._device = max_new_tokens, _device(device)
        self._dtype = _dtype(dtype, self._device)
        self._processor = _processor(name)
        model = pretrained(AutoModelForImageTextToText, name, dtype=self._dtype)
        self._model: Any = model.to(self._device).eval()
        self._tokenizer: Any = self._processor.tokenizer
        self._tokenizer.padding_side = "left"
        if self._tokenizer.pad_token_id is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._unseen = {"token_type_ids"} - {*inspect.signature(self._model.forward).parameters}
        text = config.get_text_config(decoder=True)
        self._echoes = not (config.is_encoder_decoder or text.is_encoder_decoder)

    @torch.inference_mode()
    def __call__(self, images: Sequence[Image.Image]) -> list[str]:
        """Describe images, each in one line; it may be empty."""
        inputs = self._inputs(images)
        try:
            ids = self._model.generate(**inputs, max_new_tokens=self._most, do_sample=False, num_beams=1)
        except torch.OutOfMemoryError as error:
            raise DataError(f"{len(images)} images at a time are too many for {self._device}; lower --batch") from error
        new = ids[:, self._echoed(ids, inputs.get("input_ids")) :]
        texts = self._tokenizer.batch_decode(new, skip_special_tokens=True)
        return [" ".join(text.split()) for text in texts]

    def _inputs(self, images: Sequence[Image.Image]) -> dict[str, Any]:
        processor, given = self._processor, {"return_tensors": "pt"}
        if self.prompt is None:
            inputs = processor.image_processor(list(images), **given)
        elif getattr(processor, "chat_template", None):
            content = [{"type": "image"}, {"type": "text", "text": self.prompt}]
            asked = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
            inputs = processor(images=[[image] for image in images], text=[asked] * len(images), padding=True, **given)
        else:
            inputs = processor(images=list(images), text=[self.prompt] * len(images), padding=True, **given)
        held = {
            key: value.to(self._device, self._dtype if value.is_floating_point() else None)
            for key, value in inputs.items()
            if isinstance(value, Tensor) and key not in self._unseen
        }
        if self._kind == "git" and "input_ids" in held:  # its prompts are not ended
            held |= {key: held[key][:, :-1] for key in ("input_ids", "attention_mask")}
        return held

    def _echoed(self, ids: Tensor, asked: Tensor | None) -> int:
        """Count the tokens of the prompt that a model repeats: some with another first token, or without the last."""
        if asked is None or not self._echoes:
            return 0
        for length in (asked.shape[1], asked.shape[1] - 1):
            if 0 < length <= ids.shape[1] and torch.equal(ids[:, 1:length], asked[:, 1:length]):
                return length
        return 0


def _device(name: str) -> torch.device:
    if name == "auto":
        mps = torch.backends.mps.is_available()
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise SchemaError(f"--device: expected auto, or one such as cpu or cuda, got {name!r} ({reason})") from error
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name != "auto":
        dtype: torch.dtype = getattr(torch, name)
        return dtype
    if device.type == "cpu":
        return torch.float32
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float16


def _processor(name: str | os.PathLike[str]) -> Any:
    """Load what prepares images and texts; a model of two towers may have it in two parts."""
    from types import SimpleNamespace

    from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer

    processor = pretrained(AutoProcessor, name)
    if all(hasattr(processor, part) for part in _PROCESSOR):
        return processor
    images, tokenizer = pretrained(AutoImageProcessor, name), pretrained(AutoTokenizer, name)
    return SimpleNamespace(image_processor=images, tokenizer=tokenizer)
