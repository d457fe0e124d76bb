"""The joint backbone out of any vision model and any text encoder, and scores of the backbones that mix both."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
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
    ViTConfig,
    ViTMAEConfig,
    ViTMAEModel,
    ViTModel,
)

from exmem.backbones import Bert, Joint
from exmem.errors import SchemaError
from exmem.masking.scorers import ClsAttention, RandomScores
from exmem.tokens.tensors import TensorBatch
from tests.backbones.models import SIZES, TEXTS, load, pixels, shaken, whole
from tests.backbones.models import tokenizer as tokenizer_in

LARGE = {"initializer_range": 0.5}  # so that positions matter in a random model
VISION = {
    "vit": lambda: ViTModel(ViTConfig(image_size=32, patch_size=8, **SIZES), add_pooling_layer=False),
    "dinov2": lambda: Dinov2Model(
        Dinov2Config(hidden_size=32, num_attention_heads=2, num_hidden_layers=3, image_size=40, patch_size=8)
    ),
    "clip": lambda: CLIPVisionModel(CLIPVisionConfig(image_size=32, patch_size=8, **SIZES)),
}
TEXT = {
    "bert": lambda: BertModel(BertConfig(vocab_size=10, **SIZES, **LARGE), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(vocab_size=10, **SIZES, **LARGE)),
    "electra": lambda: ElectraModel(ElectraConfig(vocab_size=10, embedding_size=32, **SIZES, **LARGE)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=10, dim=32, n_heads=2, hidden_dim=64, n_layers=2, **LARGE)
    ),
}


@pytest.fixture
def tokenizer(tmp_path):
    return tokenizer_in(tmp_path)


def made(makers, kind):
    torch.manual_seed(0)
    return shaken(makers[kind]())


def joint(vision, text, tokenizer, size=(32, 48)):
    return Joint(made(VISION, vision), made(TEXT, text), tokenizer, image_size=size, max_text=8)


@pytest.mark.parametrize("kind", VISION)
def test_without_text_it_is_the_vision_model(kind, tokenizer):
    model, original = joint(kind, "bert", tokenizer), made(VISION, kind)
    batch = whole(model)
    found = model(TensorBatch({"image": batch.tokens["image"]}, batch.labels))[:, :32]
    options = {} if kind == "dinov2" else {"interpolate_pos_encoding": True}
    with torch.no_grad():
        expected = original(pixels(model), **options)
    hidden = expected.pooler_output if kind == "clip" else expected.last_hidden_state[:, 0]
    torch.testing.assert_close(found, hidden, atol=1e-4, rtol=1e-4)  # float32, another order of sums


@pytest.mark.parametrize("kind", TEXT)
def test_texts_are_encoded_as_their_own_encoder_does(kind, tokenizer):
    model, encoder = joint("vit", kind, tokenizer), made(TEXT, kind)
    batch = whole(model, TEXTS[:1])
    with torch.no_grad():
        expected = encoder(input_ids=batch.tokens["text"].values.long()).last_hidden_state
    torch.testing.assert_close(model.embed(batch).text.values, expected)


@pytest.mark.parametrize("kind", ["bert", "roberta"])
def test_the_text_backbone_takes_the_bert_family(kind, tokenizer):
    model = Bert(made(TEXT, kind), tokenizer, max_text=8)
    batch = whole(model, TEXTS[:1])
    with torch.no_grad():
        hidden = made(TEXT, kind)(input_ids=batch.tokens["text"].values.long()).last_hidden_state
    expected = torch.cat([hidden[:, 0], hidden[:, 1:].mean(1)], 1)
    torch.testing.assert_close(model(batch), expected, atol=1e-4, rtol=1e-4)


RELATIVE = {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["c2p", "p2c"]}


def test_models_that_cannot_take_sparse_tokens_are_refused(tokenizer):
    torch.manual_seed(0)
    deberta = DebertaV2Model(DebertaV2Config(vocab_size=10, **SIZES, **LARGE, **RELATIVE)).eval()
    mpnet = MPNetModel(MPNetConfig(vocab_size=10, **SIZES, **LARGE)).eval()
    for relative in (deberta, mpnet):
        with pytest.raises(SchemaError, match="keep to the positions"):
            Joint(made(VISION, "vit"), relative, tokenizer, image_size=32)
        with pytest.raises(SchemaError, match=r"something else of separate tokens .* use a BERT"):
            Bert(relative, tokenizer)
    bert = made(TEXT, "bert")
    rotary = DINOv3ViTModel(DINOv3ViTConfig(image_size=32, patch_size=8, **SIZES)).eval()
    with pytest.raises(SchemaError, match="relative or rotary"):
        Joint(rotary, bert, tokenizer, image_size=32)
    masked = ViTMAEModel(ViTMAEConfig(image_size=32, patch_size=8, **SIZES)).eval()
    with pytest.raises(SchemaError, match="expected one token a patch"):
        Joint(masked, bert, tokenizer, image_size=32)
    siglip = SiglipVisionModel(SiglipVisionConfig(image_size=32, patch_size=8, **SIZES))
    with pytest.raises(SchemaError, match="no class token"):
        Joint(siglip, bert, tokenizer, image_size=32)
    with pytest.raises(SchemaError, match="no ViT-family vision model"):
        Joint(torch.nn.Linear(2, 2), None, tokenizer)
    with pytest.raises(SchemaError, match="no text encoder"):
        Bert(torch.nn.Linear(2, 2), tokenizer)
    tokenizer.cls_token = None
    with pytest.raises(SchemaError, match="no class token"):
        Bert(bert, tokenizer)


@pytest.mark.parametrize("kind", ["joint", "vilt"])
def test_scores_are_the_attention_of_the_class_token(kind, written):
    model = load(kind, written[kind])
    maps = ClsAttention(layers=(-1,))(model, whole(model))
    assert maps.scores["image"].shape == (2, 24)
    assert maps.scores["text"].shape == (2, 8)
    assert maps.valid["image"].all()
    assert maps.valid["text"].sum(1).tolist() == [5, 3]
    assert (maps.scores["text"][~maps.valid["text"]] == 0).all()
    total = maps.scores["image"].sum(1) + maps.scores["text"].sum(1)
    assert (total < 1).all()  # the class token attends to itself too
    assert (total > 0.5).all()
    with pytest.raises(SchemaError, match=r"the model has 3; choose from -3\.\.2"):
        ClsAttention(layers=(-4,))(model, whole(model))


def test_random_scores_are_seeded_and_cover_every_token(written):
    model = load("joint", written["joint"])
    one, two = (RandomScores(seed=3)(model, whole(model)) for _ in range(2))
    assert (one.scores["image"] == two.scores["image"]).all()
    batch = whole(model)
    alone = TensorBatch({name: t.select(torch.tensor([1])) for name, t in batch.tokens.items()}, batch.labels[1:])
    assert (RandomScores(seed=3)(model, alone).scores["image"] == one.scores["image"][1:]).all()
    assert (RandomScores(seed=4)(model, alone).scores["image"] != one.scores["image"][1:]).any()
    assert (one.scores["image"] > 0).all()
    assert one.scores["text"][1, 3:].tolist() == [0] * 5


def test_the_scale_of_texts_does_not_show_how_sums_were_rounded(written):
    scale = load("joint", written["joint"]).text_in.norm.weight[0].item()
    assert scale == pytest.approx(float(f"{scale:.3g}"), rel=1e-6), "threads and machines differ below"
