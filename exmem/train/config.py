"""Configuration of a training run: nested parts, read from the command line, from YAML or JSON, or written in code."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tyro

from exmem.errors import SchemaError
from exmem.recipes import Recipe
from exmem.registry import Part
from exmem.selection import SELECTIONS
from exmem.store import parse_bytes
from exmem.tokens.checks import flag, mapping_of, shown, whole_number
from exmem.train.checks import check_choices, check_count
from exmem.train.combinations import check_combinations
from exmem.train.data.layouts import LAYOUTS
from exmem.train.loop_config import GIVEN, LoopConfig
from exmem.train.method_config import MethodConfig
from exmem.train.methods import HEADS
from exmem.train.reading import flat, plain, read_fields
from exmem.train.scenario_names import PILOT_SEED, check_scenario, is_scenario_file
from exmem.train.tuners import TUNERS, Tuner

__all__ = ["BackboneConfig", "DataConfig", "LoopConfig", "MethodConfig", "TrainConfig", "TunerConfig"]


def _shown(metavar: str) -> Any:
    """Say how the help of `exmem train` writes the values of an option."""
    return tyro.conf.arg(metavar=metavar)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which classes come when, and what is seen of an example.

    Parameters
    ----------
    first_classes : int, optional
        Classes of the first phase; as many as the first increment when left out.
    increments : tuple of int
        Classes of the later phases. The last number repeats until no class is left, and the last phase may be smaller;
        several numbers make an uneven split.
    class_seed : int, optional
        Seed of the order of the classes; 0 when left out, with a scenario by name 1993.
    scenario : str, optional
        Classes of the phases by a name such as B0-Inc10 or B50-Inc5, in the order of PILOT and PyCIL: so many classes
        in the first phase (B0: as many as an increment), so many in each later one. Or a YAML or JSON file with
        `phases`, a list of the names of its classes for each phase, such as the scenario.json of a run.
    modalities : {"both", "image", "text"}
        What the learner sees of an example, when it is trained, replayed and tested.
    layout : Part
        How the data lies: auto (an imagefolder, tables, what `datasets` saved), undivided where it has no splits (about
        a fifth is held out for the test), or food101, imagenet_r, mm_imagenet_r, cifar100 or cub as they are
        distributed; with options as in `undivided:test_ratio=0.2,seed=0`.
    image_column : str, optional
        Column that holds the images; file_name, or else image, when left out.
    text_column : str
        Column that holds the texts.
    label_column : str
        Column that holds the classes.
    split_column : str
        Column that says train or test, where one table has both.
    skip_bad : bool
        Leave out, and tell, examples whose image, text or label is missing, or whose image cannot be decoded.
    """

    first_classes: Annotated[int | None, _shown("INT")] = None
    increments: tuple[int, ...] = (10,)
    class_seed: Annotated[int | None, _shown("INT")] = None
    scenario: Annotated[str | None, _shown("NAME|FILE")] = None
    modalities: Literal["both", "image", "text"] = "both"
    layout: Part = Part("auto")
    image_column: Annotated[str | None, _shown("COLUMN")] = None
    text_column: Annotated[str, _shown("COLUMN")] = "text"
    label_column: Annotated[str, _shown("COLUMN")] = "label"
    split_column: Annotated[str, _shown("COLUMN")] = "split"
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.class_seed is not None:
            whole_number(self.class_seed, "data.class_seed")
        if not self.increments:
            raise SchemaError("data.increments must be one or more numbers, got none")
        for number in (*self.increments, *([] if self.first_classes is None else [self.first_classes])):
            whole_number(number, "data.first_classes and data.increments", least=1)
        check_choices(self, "data")
        flag(self.skip_bad, "data.skip_bad")
        object.__setattr__(self, "layout", Part.of(self.layout))
        LAYOUTS.check(self.layout.name, self.layout.kwargs)
        if self.scenario is not None:
            check_scenario(self.scenario)
            self._check_alone()

    def _check_alone(self) -> None:
        """Refuse what a scenario says itself."""
        file = is_scenario_file(str(self.scenario))
        said = ("first_classes", "increments", "class_seed") if file else ("first_classes", "increments")
        for name in said:
            if (value := getattr(self, name)) != type(self).__dataclass_fields__[name].default:
                raise SchemaError(
                    f"data.{name} {shown(plain(value))} beside data.scenario {self.scenario!r}, which says that "
                    "itself; leave one out"
                )

    @property
    def order_seed(self) -> int | None:
        """Seed of the order of the classes that holds; None where a file has the order."""
        if self.scenario is None:
            return 0 if self.class_seed is None else self.class_seed
        if is_scenario_file(self.scenario):
            return None
        return PILOT_SEED if self.class_seed is None else self.class_seed


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """The backbone, which is frozen below its last blocks.

    Parameters
    ----------
    family : {"joint", "vilt", "clip", "siglip", "vit", "dinov2", "bert"}
        Family of models.
    vision : str, optional
        Hub name or folder of the vision model, or of the whole model of a family with one; the packaged DINOv2-S for
        joint, vit and dinov2 when left out.
    text : str, optional
        Hub name or folder of the text encoder of joint, or of bert; the packaged MiniLM when left out.
    image_size : int
        Side of the images in pixels, a multiple of the patch side.
    max_text : int
        Most text tokens, special ones included.
    """

    family: Literal["joint", "vilt", "clip", "siglip", "vit", "dinov2", "bert"] = "joint"
    vision: Annotated[str | None, _shown("NAME|FOLDER")] = None
    text: Annotated[str | None, _shown("NAME|FOLDER")] = None
    image_size: int = 224
    max_text: int = 32

    def __post_init__(self) -> None:
        check_choices(self, "backbone")
        check_count(self, "backbone", "image_size", "max_text")

    @property
    def names(self) -> tuple[str | None, ...]:
        """What `load_backbone` takes as names of the weights."""
        vision = () if self.family == "bert" else (self.vision,)
        return (*vision, self.text) if self.family in {"joint", "bert"} else vision


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunerConfig:
    """Which weights move, and when.

    Parameters
    ----------
    phases : {"auto", "all", "first", "none"}
        Phases in which they move: all, the first alone (what comes later is learnt by the head), or none; auto is all,
        but none with a recipe that stores features, which tuning makes stale, or a head that keeps sums of them.
    blocks : int
        Last transformer blocks that are tuned; the blocks below are frozen.
    adapter : Part
        What moves in them, with its options, as in `lora:rank=4,alpha=8`: lora, dora, ia3, layer_norm, ssf (scale and
        shift, as in the paper), full (all weights), or frozen (none, but the head and a projection of texts).
    charged : bool
        Whether the bytes of what moves count in the budget of the memory, as those of a head that keeps sums do.
    """

    phases: Literal["auto", "all", "first", "none"] = "auto"
    blocks: int = 2
    adapter: Part = Part("lora")
    charged: bool = False

    def __post_init__(self) -> None:
        check_choices(self, "tuner")
        check_count(self, "tuner", "blocks")
        flag(self.charged, "tuner.charged")
        object.__setattr__(self, "adapter", Part.of(self.adapter))
        TUNERS.check(self.adapter.name, self.adapter.kwargs)
        TUNERS.make(self.adapter.name, **self.adapter.kwargs)  # a value out of range is told here


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides the numbers of a run.

    Parameters
    ----------
    recipe : Recipe
        What is stored of an exemplar. By name: masked (the paper's patches and words), foveated, smoothed, rate_aware,
        jpeg, half_jpeg, third_jpeg, quarter_jpeg, raw, hidden (tokens of the frozen blocks), features (what the head
        sees), text, or none (no memory at all: fine-tuning).
    max_bytes : str
        Strict budget of the memory on disk, such as 64MB or 1.5GiB.
    seed : int
        Seed of everything but the order of the classes.
    quota : {"bytes", "counts", "frequency"}
        How classes share the budget: equal bytes, equal counts, or bytes in proportion to their training examples.
    selection : Part
        Which examples become exemplars: herding, closest_to_mean, k_centre, random, reservoir, loss or entropy.
    ranked_form : {"full", "stored"}
        Whether they are ranked by the features of the full example or of what would be stored of it.
    data : DataConfig
        Which classes come when, and what is seen of an example.
    backbone : BackboneConfig
        The backbone.
    tuner : TunerConfig
        Which weights move.
    method : MethodConfig
        What the loss is.
    loop : LoopConfig
        How a phase is trained.

    Raises
    ------
    SchemaError
        If a value is out of range, or options do not go together.
    """

    recipe: Recipe = Recipe(name="half_jpeg")  # noqa: RUF009 - frozen
    max_bytes: Annotated[str, _shown("BYTES")] = "64MB"
    seed: int = 0
    quota: Literal["bytes", "counts", "frequency"] = "bytes"
    selection: Part = Part("herding")
    ranked_form: Literal["full", "stored"] = "full"
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    backbone: BackboneConfig = dataclasses.field(default_factory=BackboneConfig)
    tuner: TunerConfig = dataclasses.field(default_factory=TunerConfig)
    method: MethodConfig = dataclasses.field(default_factory=MethodConfig)
    loop: LoopConfig = dataclasses.field(default_factory=LoopConfig)

    def __post_init__(self) -> None:
        check_choices(self, "")
        parse_bytes(self.max_bytes)
        whole_number(self.seed, "seed")
        object.__setattr__(self, "recipe", Recipe.of(self.recipe))
        object.__setattr__(self, "selection", Part.of(self.selection))
        SELECTIONS.check(self.selection.name, self.selection.kwargs, given=GIVEN)
        check_combinations(self)

    def tunes(self, phase: int) -> bool:
        """Say whether the blocks are tuned in a phase.

        Parameters
        ----------
        phase : int
            From 0.
        """
        return self.tuned_phases == "all" or (self.tuned_phases == "first" and phase == 0)

    def make_tuner(self) -> Tuner:
        """Return what adapts the backbone; where no phase tunes it, that changes nothing."""
        part = Part("frozen") if self.tuned_phases == "none" else self.tuner.adapter
        return TUNERS.make(part.name, **part.kwargs)

    @property
    def prunes(self) -> bool:
        """Whether the learner sees only the image tokens that the recipe keeps."""
        return self.recipe.level == "hidden" if self.loop.pruned == "auto" else self.loop.pruned == "always"

    @property
    def tuned_phases(self) -> str:
        """Phases in which the blocks are tuned: all, first or none."""
        if self.tuner.phases != "auto":
            return self.tuner.phases
        return "none" if self.recipe.level == "features" or self.keeps_sums else "all"

    @property
    def keeps_sums(self) -> bool:
        """Whether the head carries sums of features between phases."""
        return not self.method.trains_head and bool(HEADS[self.method.head.name].keeps_sums)

    def to_json(self) -> dict[str, Any]:
        """Return the configuration as plain JSON values."""
        return {field.name: plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "TrainConfig":
        """Read a configuration.

        Parameters
        ----------
        document : mapping
            What `to_json` returned, or a part of it; what is left out has its default. `recipe` may be a name.

        Returns
        -------
        TrainConfig
            The configuration.

        Raises
        ------
        SchemaError
            If a key is unknown, or a value is out of range.
        """
        return read_fields(cls, mapping_of(document, "configuration"), "")

    def differences(self, other: "TrainConfig") -> list[str]:
        """Name the options in which two configurations differ, of those that may not change in a run.

        Parameters
        ----------
        other : TrainConfig
            Another configuration.

        Returns
        -------
        list of str
            One `option: mine, theirs` each.
        """
        mine, theirs = (
            {**dict(flat(one.to_json())), "data.class_seed": one.data.order_seed, "data.scenario": _named(one.data)}
            for one in (self, other)
        )
        return [
            f"{name}: {shown(mine.get(name))}, {shown(theirs.get(name))}"
            for name in sorted({*mine, *theirs} - _MAY_CHANGE)
            if mine.get(name) != theirs.get(name)
        ]


def _named(data: DataConfig) -> str | None:
    """Return the name of a scenario; all files are one here, for what is in them is compared by the folder of a run."""
    return "a file" if data.scenario is not None and is_scenario_file(data.scenario) else data.scenario


_MAY_CHANGE = frozenset({"loop.accumulation", "loop.compile", "loop.keep_hidden", "loop.num_workers", "recipe.name"})
