"""Backbones on tiny random models: the sparse path is the dense path of the original model."""

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    DebertaV2Config,
    DebertaV2Model,
    Dinov2Config,
    Dinov2Model,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    MPNetConfig,
    MPNetModel,
    RobertaConfig,
    RobertaModel,
    SiglipVisionConfig,
    SiglipVisionModel,
    ViltConfig,
    ViltModel,
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from exmem.backbones import Joint, Vilt, patchify, unpatchify
from exmem.errors import InvalidExemplarError, SchemaError
from exmem.masking import ClsAttention, RandomScores
from exmem.tensors import TensorBatch, TokenTensors
from tests.exemplars import crop

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "temple", "flower", "red", "roof"]
SIZES = {"hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "num_hidden_layers": 3}
VISION = {
    "vit": lambda: ViTModel(ViTConfig(image_size=32, patch_size=8, **SIZES), add_pooling_layer=False),
    "dinov2": lambda: Dinov2Model(
        Dinov2Config(hidden_size=32, num_attention_heads=2, num_hidden_layers=3, image_size=40, patch_size=8)
    ),
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=8, **SIZES)),
}


@pytest.fixture
def tokenizer(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS))
    return BertTokenizer(str(tmp_path / "vocab.txt"))


def vision_model(kind):
    torch.manual_seed(0)
    model = VISION[kind]().eval()
    return getattr(model, "vision_model", model)


def joint(kind, tokenizer, blocks=2):
    model = vision_model(kind)
    text = BertModel(BertConfig(vocab_size=len(WORDS), **SIZES), add_pooling_layer=False)
    return Joint(model, text, tokenizer, image_size=32, trainable_blocks=blocks, max_text=8)


def vilt(tokenizer, blocks=None):
    torch.manual_seed(0)
    sizes = SIZES | {"max_position_embeddings": 8, "image_size": 32, "patch_size": 8, "vocab_size": len(WORDS)}
    model = ViltModel(ViltConfig(**sizes), add_pooling_layer=False).eval()
    return Vilt(model, tokenizer, image_size=32, trainable_blocks=blocks, max_text=8)


def both(tokenizer):
    return [*(joint(kind, tokenizer) for kind in VISION), vilt(tokenizer), vilt(tokenizer, blocks=2)]


def images(count=2):
    return np.stack([crop(seed, 32) for seed in range(count)])


def batch(model):
    return TensorBatch.from_numpy(model.tokens(images(), ["temple roof", "red"]))


def test_patches_go_together_again():
    pictures = images()
    np.testing.assert_array_equal(unpatchify(patchify(pictures, 8), (4, 4)), pictures)
    np.testing.assert_array_equal(patchify(pictures, 8)[0, 1], pictures[0, :8, 8:16])
    with pytest.raises(InvalidExemplarError, match="multiples of 5"):
        patchify(pictures, 5)


@pytest.mark.parametrize("kind", VISION)
def test_without_text_joint_is_the_original_model(kind, tokenizer):
    model = joint(kind, tokenizer)
    whole = batch(model)
    found = model(TensorBatch({"image": whole.tokens["image"]}, whole.labels))[:, :32]
    pixels = (torch.from_numpy(images()) / 255 - model.pixel_mean) / model.pixel_std
    options = {"interpolate_pos_encoding": True} if kind == "clip" else {}
    with torch.no_grad():
        expected = vision_model(kind)(pixels.permute(0, 3, 1, 2), **options)
    hidden = expected.pooler_output if kind == "clip" else expected.last_hidden_state[:, 0]
    torch.testing.assert_close(found, hidden, atol=1e-4, rtol=1e-4)  # float32, another order of sums


def test_vilt_with_everything_kept_is_the_original_model(tokenizer):
    model = vilt(tokenizer)
    pixels = (torch.from_numpy(images()) / 255 - model.pixel_mean) / model.pixel_std
    words = tokenizer(["temple roof", "red"], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model.model(
            input_ids=words["input_ids"],
            attention_mask=words["attention_mask"],
            token_type_ids=torch.zeros_like(words["input_ids"]),
            pixel_values=pixels.permute(0, 3, 1, 2),
            pixel_mask=torch.ones(2, 32, 32, dtype=torch.int64),
        ).last_hidden_state[:, 0]
    torch.testing.assert_close(model(batch(model))[:, :32], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("index", range(5))
def test_the_order_of_tokens_and_padding_do_not_matter(index, tokenizer):
    model = both(tokenizer)[index]
    whole = batch(model)
    expected = model(whole)
    image = whole.tokens["image"]
    order = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    padding = torch.zeros(2, 3, dtype=torch.bool)
    mixed = TokenTensors(
        torch.cat([image.values[:, order], torch.full((2, 3, 8, 8, 3), 77, dtype=torch.uint8)], 1),
        torch.cat([image.positions[:, order], torch.zeros(2, 3, dtype=torch.int64)], 1),
        torch.cat([image.keep[:, order], padding], 1),
    )
    found = model(TensorBatch({**whole.tokens, "image": mixed}, whole.labels))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    alone = model(TensorBatch.from_numpy(model.tokens(images()[1:], ["red"])))
    torch.testing.assert_close(alone, expected[1:], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("index", range(5))
def test_scores_are_the_attention_of_the_class_token(index, tokenizer):
    model = both(tokenizer)[index]
    maps = ClsAttention(layers=(-1,))(model, batch(model))
    assert maps.scores["image"].shape == (2, 16)
    assert maps.scores["text"].shape == (2, 8)
    assert maps.valid["image"].all()
    assert maps.valid["text"].sum(1).tolist() == [4, 3]
    assert (maps.scores["text"][~maps.valid["text"]] == 0).all()
    total = maps.scores["image"].sum(1) + maps.scores["text"].sum(1)
    assert (total < 1).all()  # the class token attends to itself too
    assert (total > 0.5).all()
    with pytest.raises(SchemaError, match="3 layers"):
        ClsAttention(layers=(-4,))(model, batch(model))


def test_random_scores_are_seeded_and_cover_every_token(tokenizer):
    model = joint("vit", tokenizer)
    one, two = (RandomScores(seed=3)(model, batch(model)) for _ in range(2))
    np.testing.assert_array_equal(one.scores["image"], two.scores["image"])
    alone = TensorBatch.from_numpy(model.tokens(images()[1:], ["red"]))
    np.testing.assert_array_equal(RandomScores(seed=3)(model, alone).scores["image"], one.scores["image"][1:])
    assert (RandomScores(seed=4)(model, alone).scores["image"] != one.scores["image"][1:]).any()
    assert (one.scores["image"] > 0).all()
    assert one.scores["text"][1, 3:].tolist() == [0] * 5


LARGE = {"initializer_range": 0.5}  # so that positions matter in a random model
TEXT = {
    "bert": lambda: BertModel(BertConfig(vocab_size=9, **SIZES, **LARGE), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(vocab_size=9, **SIZES, **LARGE)),
    "electra": lambda: ElectraModel(ElectraConfig(vocab_size=9, embedding_size=32, **SIZES, **LARGE)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=9, dim=32, n_heads=2, hidden_dim=64, n_layers=2, **LARGE)
    ),
}


@pytest.mark.parametrize("kind", TEXT)
def test_texts_are_encoded_as_their_own_encoder_does(kind, tokenizer):
    torch.manual_seed(0)
    encoder = TEXT[kind]().eval()
    model = Joint(vision_model("vit"), encoder, tokenizer, image_size=32, max_text=8)
    words = model.tokenize(["temple roof red"])
    found = model.embed(TensorBatch.from_numpy(model.tokens(images(1), ["temple roof red"]))).text
    with torch.no_grad():
        expected = encoder(input_ids=torch.from_numpy(words.values).long()).last_hidden_state
    torch.testing.assert_close(found, expected)


RELATIVE = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"]}


def test_models_that_cannot_take_sparse_tokens_are_refused(tokenizer):
    torch.manual_seed(0)
    deberta = DebertaV2Model(DebertaV2Config(vocab_size=9, **SIZES, **LARGE, **RELATIVE)).eval()
    mpnet = MPNetModel(MPNetConfig(vocab_size=9, **SIZES, **LARGE)).eval()
    for relative in (deberta, mpnet):
        with pytest.raises(SchemaError, match="keep to the positions"):
            Joint(vision_model("vit"), relative, tokenizer, image_size=32)
    bert = TEXT["bert"]().eval()
    rotary = DINOv3ViTModel(DINOv3ViTConfig(image_size=32, patch_size=8, **SIZES)).eval()
    with pytest.raises(SchemaError, match="relative or rotary"):
        Joint(rotary, bert, tokenizer, image_size=32)
    masked = ViTMAEModel(ViTMAEConfig(image_size=32, patch_size=8, **SIZES)).eval()
    with pytest.raises(SchemaError, match="expected one token a patch"):
        Joint(masked, bert, tokenizer, image_size=32)
    siglip = SiglipVisionModel(SiglipVisionConfig(image_size=32, patch_size=8, **SIZES))
    with pytest.raises(SchemaError, match="no class token"):
        Joint(siglip, bert, tokenizer, image_size=32)


def test_wrong_sizes_say_what_to_choose(tokenizer):
    with pytest.raises(SchemaError, match=r"trainable_blocks must be in 1\.\.3"):
        joint("vit", tokenizer, blocks=4)
    with pytest.raises(SchemaError, match=r"trainable_blocks must be in 1\.\.3"):
        vilt(tokenizer, blocks=0)
    with pytest.raises(SchemaError, match="no ViT-family vision model"):
        Joint(torch.nn.Linear(2, 2), None, tokenizer)
