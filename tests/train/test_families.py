"""The trainer with every family of backbones."""

import pytest
from rich.console import Console

from exmem import ExemplarMemory
from exmem.backbones import BACKBONES
from exmem.errors import SchemaError
from tests.backbones.models import load
from tests.tiny import SIDE, start

QUIET = Console(quiet=True)


@pytest.mark.parametrize(
    ("kind", "loop", "blocks"),
    [
        *((kind, {"augment": ["token_dropout"]}, 1) for kind in sorted(BACKBONES) if kind != "vilt"),
        ("vilt", {}, 1),
        ("vilt", {"augment": ["flip", "text_exchange"], "keep_hidden": False}, 3),
    ],
)
def test_every_family_of_backbones_learns(tmp_path, data, written, kind, loop, blocks):
    recipe = "text" if kind == "bert" else {}
    options = {"backbone": {"family": kind}, "tuner": {"blocks": blocks}, "data": {"increments": [2]}, "loop": loop}
    model = load(kind, written[kind], size=SIDE, blocks=blocks)
    trainer = start(tmp_path / "run", lambda: model, data, recipe, **options)
    entries = trainer.run(QUIET)
    assert len(entries) == 2
    assert entries[-1]["exemplars"] > 0
    specs = ExemplarMemory.open(tmp_path / "run" / "memory").schema.modalities
    assert {*specs} == {*trainer.backbone.token_specs()}
    lora = {name: value for name, value in trainer.learner.tuned().items() if "lora_B" in name}
    assert lora
    assert all(value.any() for value in lora.values())


HIDDEN = {"image": "hidden", "scorer": "cls_attention:layers=[-2]", "keep": "top_k:k=8", "codec": "int8", "text": "all"}
MODEL_SCORES = ("clip", "dinov2", "joint", "vit")  # siglip has no class token


@pytest.mark.parametrize(
    ("kind", "recipe"),
    [
        *((kind, HIDDEN | {"text": "none" if kind in {"dinov2", "vit"} else "all"}) for kind in MODEL_SCORES),
        ("siglip", HIDDEN | {"scorer": "centre"}),
        *((kind, {"image": "features", "codec": "int8", "text": "none"}) for kind in sorted(BACKBONES)),
    ],
    ids=str,
)
def test_every_family_learns_from_hidden_tokens_and_features(tmp_path, data, written, kind, recipe):
    options = {"backbone": {"family": kind}, "data": {"increments": [2]}}
    model = load(kind, written[kind], size=SIDE, blocks=1)
    entries = start(tmp_path / "run", lambda: model, data, recipe, **options).run(QUIET)
    assert len(entries) == 2
    assert entries[-1]["exemplars"] > 0
    assert ("linear" in entries[-1]) == (recipe["image"] == "hidden")


def test_kept_texts_cannot_be_exchanged_where_image_and_text_are_mixed(tmp_path, data, written):
    model = load("vilt", written["vilt"], size=SIDE, blocks=1)
    options = {"backbone": {"family": "vilt"}, "loop": {"augment": ["text_exchange"]}}
    with pytest.raises(SchemaError, match=r"loop\.keep_hidden=False"):
        start(tmp_path / "run", lambda: model, data, **options)
    assert not (tmp_path / "run").exists()
