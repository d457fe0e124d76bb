"""Faults that earlier stores had: values of another kind, and values that were changed from outside."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest

from exmem import Exemplar, ExemplarMemory, ExtraSpec, PaddedTokens, Schema, TokenBatch, TokenSet, TokenSpec
from exmem.errors import BudgetTooSmallError, CodecError, ExmemError, InvalidExemplarError, SchemaError
from exmem.memory.quota import Quota
from exmem.memory.reservoir import StreamReservoir
from tests.store.made import NUMBERS, QUICK, TEXT, contents, text

# What is of another kind altogether: never an error from inside, never taken for something else.


ONE = text(0).tokens
DENSE = {"text": np.ones((1, 8), np.uint8)}
NESTED: list = []
for _ in range(5_000):
    NESTED = [NESTED]

STRANGE_ACTS = {
    "add(None)": lambda memory: memory.add(None),
    "add(exemplar)": lambda memory: memory.add(text(0)),
    "add(text)": lambda memory: memory.add("ab"),
    "add(nothing)": lambda memory: memory.add(""),
    "add(no mapping)": lambda memory: memory.add({}),
    "add(no array)": lambda memory: memory.add(np.zeros(0)),
    "priority(span)": lambda memory: memory.add([Exemplar(ONE, label=0, priority=np.timedelta64(1))]),
    "add(5)": lambda memory: memory.add(5),
    "add(memory)": lambda memory: memory.add(memory),
    "plan_add(None)": lambda memory: memory.plan_add(None),
    "add_batch(None)": lambda memory: memory.add_batch(None, [0]),
    "add_batch(ragged)": lambda memory: memory.add_batch({"text": [[1], [1, 2]]}, [0, 1]),
    "add_batch(labels)": lambda memory: memory.add_batch(DENSE, None),
    "add_batch(priorities)": lambda memory: memory.add_batch(DENSE, [0], priorities="x"),
    "add_batch(keep)": lambda memory: memory.add_batch(DENSE, [0], keep=5),
    "add_batch(masked)": lambda memory: memory.add_batch(DENSE, [0], keep=np.ma.masked),
    "add_batch(extras)": lambda memory: memory.add_batch(DENSE, [0], extras="x"),
    "add_batch(0)": lambda memory: memory.add_batch(DENSE, [0], extras=0),
    "priority(text)": lambda memory: memory.add([Exemplar(ONE, label=0, priority="9")]),
    "priority(bytes)": lambda memory: memory.add([Exemplar(ONE, label=0, priority=b"1")]),
    "priority(date)": lambda memory: memory.add([Exemplar(ONE, label=0, priority=np.datetime64("2020"))]),
    "priority(masked)": lambda memory: memory.add([Exemplar(ONE, label=0, priority=np.ma.masked)]),
    "priority(bool)": lambda memory: memory.add([Exemplar(ONE, label=0, priority=True)]),
    "priority(10**400)": lambda memory: memory.add([Exemplar(ONE, label=0, priority=10**400)]),
    "label(masked)": lambda memory: memory.add([Exemplar(ONE, label=np.ma.array(1, mask=True))]),
    "label(digits)": lambda memory: memory.add([Exemplar(ONE, label=10**5000)]),
    "values(masked)": lambda memory: memory.add(
        [Exemplar({"text": TokenSet([0], np.ma.masked_all(1, "u1"))}, label=0)]
    ),
    "update(extras)": lambda memory: memory.update([0], extras=5),
    "update(0)": lambda memory: memory.update([0], extras=0),
    "update(date)": lambda memory: memory.update([0], priority=np.datetime64("2020")),
    "update(text)": lambda memory: memory.update([0], priority="9"),
    "update(bool)": lambda memory: memory.update([0], priority=[True]),
    "update(masked)": lambda memory: memory.update([0], priority=np.ma.masked),
    "update(ragged)": lambda memory: memory.update([0], priority=[[1], [1, 2]]),
    "read(ragged)": lambda memory: memory.read([[1], [1, 2]]),
    "weigh(None)": lambda memory: memory.weigh(None),
    "weigh(function)": lambda memory: memory.weigh(lambda summary: None),
    "weigh(text)": lambda memory: memory.weigh({0: "2"}),
    "sample(None)": lambda memory: memory.sample(None),
    "sample(text)": lambda memory: memory.sample("3"),
    "sample(1.5)": lambda memory: memory.sample(1.5),
    "sample(True)": lambda memory: memory.sample(True),
    "sample(seed)": lambda memory: memory.sample(1, seed=None),
    "sample(sampler)": lambda memory: memory.sample(1, sampler=np.array(["uniform", "x"])),
    "charge(empty)": lambda memory: memory.charge("", 1),
    "resize(True)": lambda memory: memory.resize(max_exemplars=True),
    "annotate(deep)": lambda memory: memory.annotate(attrs={"a": NESTED}),
    "annotate(keys)": lambda memory: memory.annotate(attrs={"a": {1: 2, "1": 3}}),
    "annotate(names)": lambda memory: memory.annotate(class_names=[1]),
    "annotate(5)": lambda memory: memory.annotate(attrs=5),
    "open(mode)": lambda memory: ExemplarMemory.open(memory.location, mode=[]),
    "open(take_lock)": lambda memory: ExemplarMemory.open(memory.location, take_lock="no"),
    "open(durable)": lambda memory: ExemplarMemory.open(memory.location, durable=1),
    "open(threads)": lambda memory: ExemplarMemory.open(memory.location, threads="2"),
}


@pytest.mark.parametrize("act", STRANGE_ACTS.values(), ids=STRANGE_ACTS)
def test_what_is_of_another_kind_is_refused_in_words_and_changes_nothing(tmp_path, act):
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        memory.add([text(0), text(1)])
        memory.commit()
        held = contents(memory), memory.attrs, memory.charges, memory.generation
        with pytest.raises(ExmemError):
            act(memory)
        assert (contents(memory), memory.attrs, memory.charges, memory.generation) == held


STRANGE_VALUES = {
    "tokens": lambda: Exemplar(None, label=0),
    "extras": lambda: Exemplar(ONE, label=0, extras=None),
    "dense": lambda: TokenSet.dense(5),
    "ragged": lambda: TokenSet([0, 1], [[1], [1, 2]]),
    "batch of None": lambda: TokenBatch.of(None),
    "batch of text": lambda: TokenBatch.of("x"),
    "batch of labels": lambda: TokenBatch.of([Exemplar(ONE, label="x")]),
    "batch of shapes": lambda: TokenBatch.of([Exemplar(ONE, 0, extras={"a": value}) for value in (1, [1])]),
    "batch of columns": lambda: TokenBatch({}, [0], priorities="x"),
    "batch without labels": lambda: TokenBatch({}, None),
    "batch of arrays": lambda: TokenBatch({"text": np.zeros((1, 2))}, [0]),
    "batch of scalars": lambda: TokenBatch({}, [0], extras={"a": 5}),
    "padded": lambda: PaddedTokens.of(5),
    "schema": lambda: Schema(None),
    "schema of extras": lambda: Schema({"a": TokenSpec(positions=1)}, extras="x"),
    "quota": lambda: Quota(weights=None),
    "codec of arrays": lambda: TokenSpec(positions=1, codec={"id": "lossless", "level": np.array(1)}),
    "codec of depth": lambda: TokenSpec(positions=1, codec={"id": "lossless", "level": NESTED}),
    "codec of keys": lambda: TokenSpec(positions=1, codec={"id": "lossless", 1: 1}),
    "document": lambda: Schema.from_json(NESTED),
    "quota document": lambda: Quota.from_json(np.zeros(2)),
    "quota of no unit": lambda: Quota(unit=[]),
    **{
        f"{spec.__name__}({option}={value!r})": lambda spec=spec, option=option, value=value: spec(
            **({"positions": 1} if spec is TokenSpec else {}), **{option: value}
        )
        for spec in (TokenSpec, ExtraSpec)
        for option, value in [
            ("shape", (2**70,)),
            ("shape", (2**20,) * 20),
            ("shape", (1,) * 40),
            ("shape", "93"),
            ("shape", b"1"),
            ("shape", (1.0,)),
            ("shape", (True,)),
            ("shape", 3),
            ("shape", {1, 2}),
            ("shape", np.zeros((0, 3), int)),
            ("dtype", None),
            ("dtype", np.longdouble),
            ("dtype", np.clongdouble),
            ("dtype", "datetime64[s]"),
            ("dtype", {}),
        ]
    },
}


@pytest.mark.parametrize("make", STRANGE_VALUES.values(), ids=STRANGE_VALUES)
def test_values_of_another_kind_are_refused_where_they_are_made(make):
    with pytest.raises(ExmemError):
        make()


def test_a_reservoir_takes_no_other_kind_either(tmp_path):
    with ExemplarMemory.create(
        tmp_path / "m", schema=TEXT, max_bytes=50_000, eviction="by_priority", **QUICK
    ) as memory:
        with pytest.raises(SchemaError):
            StreamReservoir(memory, seed="1")
        with pytest.raises(InvalidExemplarError, match="put it in a list"):
            StreamReservoir(memory).add(text(0))


def test_tensors_are_taken_where_they_are_arrays_and_refused_in_words_where_they_are_none(tmp_path):
    torch = pytest.importorskip("torch")
    schema = Schema({"f": TokenSpec(positions=2, shape=(2,), dtype="float32")}, {"e": ExtraSpec(dtype="float32")})
    values, one = torch.ones(1, 2), torch.tensor(1.0)

    def given(values=values, extra=one, priority=0.0, label=0):
        return Exemplar({"f": TokenSet([0], values)}, label=label, priority=priority, extras={"e": extra})

    with ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes=50_000, **QUICK) as memory:
        for wrong in (
            lambda: given(torch.ones(1, 2, requires_grad=True)),
            lambda: given(torch.ones(1, 2, dtype=torch.bfloat16)),
            lambda: given(extra=torch.ones((), requires_grad=True)),
            lambda: given(extra=[torch.ones(()).requires_grad_()][0].bfloat16()),
        ):
            with pytest.raises(InvalidExemplarError, match=r"\.detach\(\)"):
                memory.add([wrong()])
        with pytest.raises(InvalidExemplarError, match="label"):
            memory.add([given(label=torch.tensor(1.0))])
        with pytest.raises(InvalidExemplarError, match="priorities"):
            memory.add_batch(
                {"f": torch.ones(1, 2, 2)}, [0], priorities=one[None].requires_grad_(), extras={"e": [1.0]}
            )
        with pytest.raises(SchemaError):
            TokenSpec(positions=1, shape=torch.tensor([1.5]))
        with pytest.raises(SchemaError):
            TokenSpec(positions=1, dtype=torch.tensor(1))
        assert len(memory) == 0
        memory.add([given(label=torch.tensor(3), priority=torch.tensor(0.5, dtype=torch.bfloat16))])
        memory.add_batch(
            {"f": torch.ones(1, 2, 2)}, torch.tensor([3]), priorities=torch.tensor([0.5]), extras={"e": one[None]}
        )
        assert (memory.labels.tolist(), memory.priorities.tolist()) == ([3, 3], [0.5, 0.5])
    assert TokenSpec(positions=1, shape=torch.Size([3, 2])).shape == (3, 2)


# What a memory hands out of itself.


def test_what_a_memory_hands_out_cannot_change_it(tmp_path):
    folder = tmp_path / "m"
    with ExemplarMemory.create(folder, schema=NUMBERS, max_bytes=50_000, **QUICK) as memory:
        memory.annotate(attrs={"d": {"l": [1]}}, class_names={0: "zero"})
        memory.weigh({0: 2.0})
        memory.charge("means", 5)
        for change in (
            lambda: memory.quota.weights.__setitem__(0, -1e300),
            lambda: memory.quota.weights.update({0: 3.0}),
            lambda: memory.quota.weights.clear(),
            lambda: memory.schema.modalities.__setitem__("zz", 1),
            lambda: memory.schema.modalities.pop("t"),
            lambda: memory.schema.extras.setdefault("zz", 1),
            lambda: memory.schema.modalities["t"].codec.__setitem__("level", 1),
            lambda: memory.schema.modalities["t"].codec.__ior__({"level": 1}),
        ):
            with pytest.raises(TypeError, match="read-only"):
                change()
        memory.attrs["d"]["l"].append(object())
        memory.charges["means"] = memory.class_names[0] = 7
        memory.labels[:] = memory.slots[:] = 9
        memory.annotate(class_names={0: "nought"})
        memory.add([Exemplar({"t": TokenSet([0], np.ones(1, np.int32))}, label=0, extras={"e": 1})])
    with ExemplarMemory.open(folder) as memory:
        assert (memory.attrs, memory.class_names) == ({"d": {"l": [1]}}, {0: "nought"})
        assert (memory.quota, memory.charges) == (Quota(weights={0: 2.0}), {"means": 5})
        assert (memory.schema, memory.labels.tolist()) == (NUMBERS, [0])


@pytest.mark.parametrize("value", [NUMBERS, Quota(unit="counts", weights={3: 2.0})], ids=["schema", "quota"])
def test_schemas_and_quotas_are_copied_pickled_and_replaced_like_other_values(value):
    for again in (
        copy.copy(value),
        copy.deepcopy(value),
        pickle.loads(pickle.dumps(value)),
        dataclasses.replace(value),
    ):
        assert again == value
        assert again.to_json() == value.to_json()
        assert type(value)(**vars(again)) == value
        with pytest.raises(TypeError, match="read-only"):
            next(iter(vars(again).values() if isinstance(value, Schema) else [again.weights])).clear()


def test_what_was_given_may_change_afterwards(tmp_path):
    codec, modalities = {"id": "lossless", "level": 3}, {}
    modalities["t"] = TokenSpec(positions=4, codec=codec)
    schema = Schema(modalities)
    codec["level"] = 99
    modalities.clear()
    attrs = {"a": [1]}
    with ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes=50_000, **QUICK) as memory:
        memory.annotate(attrs=attrs)
        attrs["a"].append(2)
        assert memory.attrs == {"a": [1]}
        assert memory.schema.modalities["t"].codec == {"id": "lossless", "level": 3}


# What errors say.


def test_errors_say_what_was_expected_in_words_and_cut_what_they_echo(tmp_path):
    long = "x" * 100_000
    with ExemplarMemory.create(tmp_path / "m", schema=TEXT, max_bytes=50_000, **QUICK) as memory:
        with pytest.raises(InvalidExemplarError, match=r"expected values \(K,\) of uint8, got \(1, 2\)"):
            memory.add([Exemplar({"text": TokenSet([0], np.ones((1, 2), np.uint8))}, label=0)])
        with pytest.raises(BudgetTooSmallError, match=r"what is noted: .* bytes are left") as noted:
            memory.annotate(attrs={"note": long})
        with pytest.raises(BudgetTooSmallError, match="a budget of 1,000 bytes: 1,000 bytes are left"):
            memory.resize("1kB")
        told = [str(noted.value)]
        for act in (
            lambda: memory.charge(long, 10),
            lambda: memory.charge(long + "\0", 10),
            lambda: memory.annotate(class_names={0: long + "\0"}),
            lambda: memory.annotate(attrs={long: object()}),
            lambda: memory.resize(long),
            lambda: memory.resize(10**4000),
            lambda: memory.sample(1, sampler=long),
            lambda: memory.weigh({0: long}),
            lambda: memory.add([Exemplar(ONE, label=long)]),
            lambda: memory.add([Exemplar({long: ONE["text"]}, label=0)]),
            lambda: TokenSpec(positions=1, dtype=long),
            lambda: TokenSpec(positions=1, codec=5 * [long]),
        ):
            with pytest.raises(ExmemError) as caught:
                act()
            told.append(str(caught.value))
    assert max(map(len, told)) < 600, max(told, key=len)


@pytest.mark.parametrize("option", ["x", None, True, 2**70, [1]], ids=repr)
def test_an_option_of_a_codec_that_is_no_number_is_named(option, tmp_path):
    for codec, name in [("patch_jpeg", "quality"), ("patch_jxl", "distance"), ("lossless", "level")]:
        schema = Schema({"a": TokenSpec(positions=1, shape=(16, 16, 3), codec={"id": codec, name: option})})
        with pytest.raises(CodecError, match=name) as caught:
            ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes=100_000)
        assert "not supported" not in str(caught.value)
    schema = Schema({"a": TokenSpec(positions=1, shape=(16, 16, 3), codec={"id": "patch_jpeg", "qualty": 3})})
    known = r"unknown options \['qualty'\]; it knows \['header', 'quality', 'subsampling'\]"
    with pytest.raises(CodecError, match=known):
        ExemplarMemory.create(tmp_path / "m", schema=schema, max_bytes=100_000)
    assert not (tmp_path / "m").exists()
