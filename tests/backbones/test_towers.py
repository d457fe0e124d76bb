"""CLIP and SigLIP: texts beside images, what is read of a text that lost tokens, similarity."""

import dataclasses

import pytest
import torch
from torch.nn.functional import cosine_similarity

from exmem.backbones import Clip, Siglip
from exmem.errors import SchemaError
from exmem.tokens.tensors import TensorBatch
from tests.backbones.models import END, PAD, load, original, whole

CLOSE = {"atol": 1e-4, "rtol": 1e-4}  # float32, another order of sums


@pytest.fixture(params=["clip", "siglip"])
def kind(request):
    return request.param


@pytest.fixture
def backbone(kind, written):
    return load(kind, written[kind])


def dropped(batch, places):
    """The batch without some places of its texts."""
    keep = batch.tokens["text"].valid.clone()
    keep[:, places] = False
    return TensorBatch({**batch.tokens, "text": dataclasses.replace(batch.tokens["text"], valid=keep)}, batch.labels)


def text_of(backbone, batch):
    return backbone(batch)[:, backbone.embedding_dim :]


@torch.no_grad()
def test_clip_reads_the_last_kept_token_which_sees_those_before_it_at_their_own_places(written):
    backbone, model = load("clip", written["clip"]), original("clip", written["clip"])
    ids = whole(backbone).tokens["text"].values[:1].long()
    assert ids.tolist() == [[2, 5, 8, 7, END]]
    for lost in ([1], [2, 3], [4], [3, 4]):
        places = torch.tensor([[place for place in range(5) if place not in lost]])
        hidden = model.text_model(input_ids=ids[:, places[0]], position_ids=places).last_hidden_state
        expected = model.text_projection(hidden[:, -1])
        torch.testing.assert_close(text_of(backbone, dropped(whole(backbone), lost))[:1], expected, **CLOSE)


@torch.no_grad()
def test_siglip_reads_padding_where_tokens_were_dropped(written):
    backbone, model = load("siglip", written["siglip"]), original("siglip", written["siglip"])
    ids = torch.tensor([[2, PAD, 8, PAD, END, PAD, PAD, PAD]])
    expected = model.get_text_features(input_ids=ids).pooler_output
    torch.testing.assert_close(text_of(backbone, dropped(whole(backbone), [1, 3]))[:1], expected, **CLOSE)
    assert backbone.token_specs()["text"].positions == 8
    assert whole(backbone).tokens["text"].valid.sum(1).tolist() == [5, 3]  # what is stored stays sparse


def test_a_modality_without_tokens_is_zero_in_the_feature(backbone):
    batch, width = whole(backbone), backbone.embedding_dim
    assert (text_of(backbone, dropped(batch, slice(None))) == 0).all()
    assert (backbone(TensorBatch({"text": batch.tokens["text"]}, batch.labels))[:, :width] == 0).all()


@torch.no_grad()
def test_similarity_has_no_value_where_there_is_no_token_and_shares_sum_to_one(kind, backbone):
    batch = whole(backbone)
    found = backbone.similarity(batch, backbone.embed(batch))
    text, image = batch.tokens["text"].valid, batch.tokens["image"].valid
    assert found.text.shape == (2, 5)
    assert (found.text[~text] == 0).all()
    for part, rows, columns in ((found.text_to_image, text, image), (found.image_to_text, image, text)):
        torch.testing.assert_close(part.sum(2)[rows], torch.ones(int(rows.sum())), **CLOSE)
        assert (part[~rows] == 0).all()
        assert (part.transpose(1, 2)[~columns] == 0).all()
    picture, words = backbone(batch).split(backbone.embedding_dim, 1)
    if kind == "clip":  # its text embedding is the projection of the last token
        expected = cosine_similarity(picture, words)
        torch.testing.assert_close(torch.stack([found.text[0, 4], found.text[1, 2]]), expected, **CLOSE)


def cut_patches(backbone, batch):
    """Vision states after the last block."""
    image, tower = batch.tokens["image"], backbone.vision
    return tower.run(tower.embed(backbone.normalise(image.values), image), image.valid, slice(None))


@torch.no_grad()
def test_a_word_belongs_to_patches_by_their_cosines_at_the_temperature_of_the_model(kind, written, backbone):
    batch, tower = whole(backbone), backbone.text
    ids, keep, positions = backbone.text_sequence(batch.tokens["text"])
    words = backbone.embed_words(tower.norm(tower.run(tower.embed(ids, positions), keep, positions, slice(None))))
    patches = backbone.embed_patches(cut_patches(backbone, batch))
    one, two = (cosine_similarity(words[0, 1], patches[0, place], dim=0) for place in (3, 17))
    temperature = original(kind, written[kind]).logit_scale.exp().item()
    share = backbone.similarity(batch, backbone.embed(batch)).text_to_image[0, 1].log()
    assert (share[3] - share[17]).item() == pytest.approx(temperature * (one - two).item(), abs=1e-3)


@torch.no_grad()
def test_similarity_follows_the_order_of_the_tokens_and_misses_what_is_not_there(backbone):
    batch = whole(backbone)
    expected = backbone.similarity(batch, backbone.embed(batch))
    order = torch.tensor([3, 0, 2, 1, 4])
    text = batch.tokens["text"]
    moved = dataclasses.replace(
        text, values=text.values[:, order], positions=text.positions[:, order], valid=text.valid[:, order]
    )
    other = TensorBatch({**batch.tokens, "text": moved}, batch.labels)
    found = backbone.similarity(other, backbone.embed(other))
    torch.testing.assert_close(found.text, expected.text[:, order], **CLOSE)
    torch.testing.assert_close(found.text_to_image, expected.text_to_image[:, order], **CLOSE)
    torch.testing.assert_close(found.image_to_text, expected.image_to_text[:, :, order], **CLOSE)
    for missing in ("image", "text"):
        rest = {name: tokens for name, tokens in batch.tokens.items() if name != missing}
        alone = TensorBatch(rest, batch.labels)
        assert all(part.isfinite().all() for part in backbone.similarity(alone, backbone.embed(alone)))


@torch.no_grad()
def test_siglip_pools_a_picture_of_one_patch_as_that_patch_alone(written):
    backbone = load("siglip", written["siglip"])
    batch = whole(backbone)
    keep = torch.zeros_like(batch.tokens["image"].valid)
    keep[:, 5] = True
    image = dataclasses.replace(batch.tokens["image"], valid=keep)
    one = TensorBatch({**batch.tokens, "image": image}, batch.labels)
    hidden = cut_patches(backbone, one)
    torch.testing.assert_close(backbone.embed_patches(hidden)[:, 5], backbone.embed_image(hidden, keep), **CLOSE)


def test_only_the_pooling_of_siglip_has_a_query(written):
    for kind, layers in (("clip", 3), ("siglip", 4)):
        backbone = load(kind, written[kind])
        stream = backbone.embed(whole(backbone))
        layouts = [backbone.layout(stream, layer) for layer in range(layers)]
        assert len(backbone.attention_taps()) == layers
        assert all(layout.text is None for layout in layouts)
        queries = [layout.query for layout in layouts]
        assert queries == ([slice(0, 1)] * 3 if kind == "clip" else [None, None, None, slice(0, 1)])
        assert [layout.residual for layout in layouts] == [True, True, True, False][:layers]


def test_models_of_another_kind_are_refused(written):
    clip, siglip = (original(kind, written[kind]) for kind in ("clip", "siglip"))
    tokenizer = load("clip", written["clip"]).tokenizer
    with pytest.raises(SchemaError, match="no projections of both towers"):
        Clip(siglip, tokenizer)
    with pytest.raises(SchemaError, match="no attention pooling"):
        Siglip(clip, tokenizer)
    with pytest.raises(SchemaError, match="no projections of both towers"):
        Clip(original("bert", written["bert"]), tokenizer)
    tokenizer.pad_token = None
    with pytest.raises(SchemaError, match="no padding token"):
        Siglip(siglip, tokenizer)
