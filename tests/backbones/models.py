"""Tiny random models of every family, saved as `from_pretrained` takes them, and what the originals make of inputs."""

import numpy as np
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPConfig,
    CLIPModel,
    Dinov2Config,
    Dinov2Model,
    SiglipConfig,
    SiglipModel,
    ViltConfig,
    ViltModel,
    ViTConfig,
    ViTModel,
)

from exmem.backbones import load_backbone
from exmem.tokens.tensors import TensorBatch
from tests.exemplars import photographs

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "temple", "flower", "red", "roof", "leaf"]
PAD, END, MASK = 0, 3, 4
TEXTS = ["temple roof red", "leaf"]
PATCH, WIDTH, MAX_TEXT = 8, 32, 8
SIZES = {"hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 3}
VISION = {"image_size": 32, "patch_size": PATCH}
_TEXT = {"vocab_size": len(WORDS), "max_position_embeddings": MAX_TEXT}
_TOKENS = {"eos_token_id": END, "pad_token_id": PAD, "bos_token_id": 2}
_TWO = {"text_config": SIZES | _TEXT | _TOKENS, "vision_config": SIZES | VISION}

MAKERS = {
    "bert": lambda: BertModel(BertConfig(**SIZES, **_TEXT), add_pooling_layer=False),
    "clip": lambda: CLIPModel(CLIPConfig(**_TWO, projection_dim=24)),
    "dinov2": lambda: Dinov2Model(
        Dinov2Config(hidden_size=WIDTH, num_attention_heads=2, num_hidden_layers=3, mlp_ratio=2, **VISION)
    ),
    "siglip": lambda: SiglipModel(SiglipConfig(**_TWO)),
    "vilt": lambda: ViltModel(ViltConfig(**SIZES, **_TEXT, **VISION, max_image_length=-1), add_pooling_layer=False),
    "vit": lambda: ViTModel(ViTConfig(**SIZES, **VISION), add_pooling_layer=False),
}


def shaken(model, seed=0):
    """The model with every weight moved at random, so that positions, biases and mask tokens matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def tokenizer(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizer(str(folder / "vocab.txt"))


def write(kind, folder):
    """Write a model with its tokenizer; return the names that `load_backbone` takes."""
    if kind == "joint":
        return *write("vit", folder), *write("bert", folder)
    torch.manual_seed(0)
    shaken(MAKERS[kind]()).save_pretrained(folder / kind)
    tokenizer(folder / kind).save_pretrained(folder / kind)
    return (folder / kind,)


def load(kind, names, *, size=(32, 48), blocks=2):
    return load_backbone(kind, *names, image_size=size, trainable_blocks=blocks, max_text=MAX_TEXT)


def original(kind, names):
    if kind == "vilt":
        return ViltModel.from_pretrained(names[0], add_pooling_layer=False).eval()
    return AutoModel.from_pretrained(names[0]).eval()


def pictures(backbone, count=2):
    """Crops of two photographs."""
    height, width = backbone.image_sides
    return np.stack([photographs()[seed % 2][seed : seed + height, 50 : 50 + width] for seed in range(count)])


def whole(backbone, texts=TEXTS):
    return TensorBatch.from_numpy(backbone.tokens(pictures(backbone, len(texts)), texts))


def pixels(backbone):
    values = (torch.from_numpy(pictures(backbone)) / 255 - backbone.pixel_mean) / backbone.pixel_std
    return values.permute(0, 3, 1, 2)


@torch.no_grad()
def dense_features(kind, model, backbone):
    """The features of `whole(backbone)`, put together from a dense forward pass of the original model."""
    picture = pixels(backbone)
    interpolated = {} if kind in {"dinov2", "vilt", "bert"} else {"interpolate_pos_encoding": True}
    if kind in {"vit", "dinov2", "joint"}:
        hidden = model(picture, **interpolated).last_hidden_state
        nothing = [torch.zeros(2, WIDTH)] if kind == "joint" else []
        return torch.cat([hidden[:, 0], hidden[:, 1:].mean(1), *nothing], 1)
    padding = {"padding": "max_length", "max_length": MAX_TEXT} if kind == "siglip" else {"padding": True}
    words = backbone.tokenizer(TEXTS, return_tensors="pt", **padding)
    ids, keep = words["input_ids"], words["attention_mask"]
    if kind in {"clip", "siglip"}:
        seen = {"attention_mask": keep} if kind == "clip" else {}  # SigLIP sees its padding
        image = model.get_image_features(picture, **interpolated).pooler_output
        return torch.cat([image, model.get_text_features(ids, **seen).pooler_output], 1)
    if kind == "bert":
        hidden = model(input_ids=ids, attention_mask=keep).last_hidden_state
        return torch.cat([hidden[:, 0], mean_of(hidden[:, 1:], keep[:, 1:])], 1)
    masks = {"attention_mask": keep, "pixel_mask": torch.ones(2, *backbone.image_sides, dtype=torch.int64)}
    types = torch.zeros_like(ids)
    hidden = model(input_ids=ids, token_type_ids=types, pixel_values=picture, **masks).last_hidden_state
    text, image = hidden[:, : ids.shape[1]], hidden[:, ids.shape[1] + 1 :]  # patches in any order
    return torch.cat([text[:, 0], image.mean(1), mean_of(text[:, 1:], keep[:, 1:])], 1)


def mean_of(hidden, keep):
    weights = keep.unsqueeze(-1).float()
    return (hidden * weights).sum(1) / weights.sum(1)
