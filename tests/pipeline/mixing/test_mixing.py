"""Mixing as a whole: shares, repetition, ranks and resuming as properties; and what a stage makes of a mixture that leaks."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import load_yaml
from pipeline.errors import UserError
from pipeline.features.subset import FeatureSubset
from pipeline.features.table import FeatureTable
from pipeline.mixing.batches import TrainBatches
from pipeline.mixing.rates import RATE_SCALE, sampling_rates, steps_for
from pipeline.mixing.schedule import Schedule
from pipeline.params import MixtureParams
from pipeline.training.setup import TaskData
from stages.featurize import featurize
from stages.generate import generate
from stages.mix import mix
from stages.mixture_corpora import mixture_corpora
from stages.prepare import prepare
from stages.runtime.params import load_params
from stages.runtime.paths import EXAMPLES, FEATURES
from tests.support import tiny
from tests.support.small_project import make_project, write_params

FEW = settings(max_examples=40, deadline=None)
SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**6), min_size=1)


@FEW
@given(
    weights=st.lists(st.integers(1, 1000), min_size=1, max_size=6),
    power=st.integers(0, 12),
    number=st.integers(0, 500),
)
def test_a_window_holds_each_corpus_in_its_share_within_one(
    weights: list[int], power: int, number: int
) -> None:
    """A window: 2^m micro-batches, from a multiple of 2^m on."""
    rates = sampling_rates(
        {str(i): weight for i, weight in enumerate(weights)}, MixtureParams("all", 1.0)
    )
    schedule, size = Schedule(tuple(rates.values())), 1 << power
    for corpus, rate in enumerate(rates.values()):
        found = schedule.count(corpus, (number + 1) * size) - schedule.count(corpus, number * size)
        assert abs(found - rate * size / RATE_SCALE) < 1


@FEW
@given(sizes=SIZES, num_micro_batches=st.integers(8, 5000))
def test_no_corpus_goes_without_a_micro_batch(
    sizes: dict[str, int], num_micro_batches: int
) -> None:
    rates = sampling_rates(sizes, MixtureParams("all", 1.0, 10**6), num_micro_batches)
    assert sum(rates.values()) == RATE_SCALE
    schedule = Schedule(tuple(rates.values()))
    assert all(schedule.count(corpus, num_micro_batches) >= 1 for corpus in range(len(rates)))


def test_only_small_shares_are_raised() -> None:
    sizes = {"tiny": 1, "one": 500_000, "two": 250_000}
    rates = sampling_rates(sizes, MixtureParams("all", 1.0, 10**6), num_micro_batches=100)
    assert rates["tiny"] == RATE_SCALE >> 6
    assert rates["one"] == pytest.approx(2 * rates["two"], abs=2)


@pytest.mark.parametrize(
    ("params", "wanted"),
    [
        ({"temperature": 1.0}, {"a": 0.1, "b": 0.9}),
        ({"temperature": "equal"}, {"a": 0.5, "b": 0.5}),
        ({"temperature": "equal", "weights": {"a": 3.0}}, {"a": 0.75, "b": 0.25}),
        ({"temperature": 1.0, "cap": 100}, {"a": 0.5, "b": 0.5}),
        ({"shares": {"a": 1.0, "b": 3.0}}, {"a": 0.25, "b": 0.75}),
    ],
)
def test_the_ways_to_mix(params: dict[str, Any], wanted: dict[str, float]) -> None:
    rates = sampling_rates({"a": 100, "b": 900}, MixtureParams("all", **params))
    assert {name: rate / RATE_SCALE for name, rate in rates.items()} == pytest.approx(
        wanted, abs=1e-5
    )


@pytest.mark.parametrize(
    ("params", "num_micro_batches", "message"),
    [
        ({"shares": {"a": 1.0}}, RATE_SCALE, "shares: found a; give one for each of a, b"),
        ({"shares": {"a": 1.0, "c": 1.0}}, RATE_SCALE, "shares: found a, c"),
        ({}, 1, "2 corpora cannot each have one of 1 micro-batches"),
    ],
)
def test_a_mixture_that_cannot_be(
    params: dict[str, Any], num_micro_batches: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sampling_rates({"a": 1, "b": 1}, MixtureParams("all", **params), num_micro_batches)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"shares": {"a": 0.0}}, "shares.a is 0.0"),
        ({"shares": {"a": float("inf")}}, "shares.a is inf"),
        ({"shares": {"a": 1.0}, "weights": {"a": 1.0}}, "remove one of the two"),
        ({"most_epochs": 0.01}, "least_epochs is 0.05 and most_epochs 0.01"),
        ({"temperature": -1.0}, "temperature is -1.0"),
    ],
)
def test_senseless_params_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MixtureParams("all", **values)


# What is drawn


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[FeatureTable]:
    place = tmp_path_factory.mktemp("tables")
    return [
        tiny.table(place, "classes", 60, 0),
        tiny.table(place, "classes", 25, 1),
        tiny.table(place, "positions", 40, 2),
    ]


def batches(
    tables: list[FeatureTable], weights: list[int], micro_batches_per_step: int, seed: int
) -> TrainBatches:
    rates = sampling_rates(
        {str(n): weight for n, weight in enumerate(weights)}, MixtureParams("all", 1.0)
    )
    return TrainBatches(tables, list(rates.values()), 64, micro_batches_per_step, seed)


WEIGHTS = st.lists(st.integers(1, 20), min_size=3, max_size=3)


@FEW
@given(weights=WEIGHTS, seed=st.integers(0, 2**40))
def test_each_row_comes_once_an_epoch(
    weights: list[int], seed: int, tables: list[FeatureTable]
) -> None:
    made = batches(tables, weights, 1, seed)
    seen: list[list[int]] = [[] for _ in tables]
    for step in range(200):
        (micro,) = made.step(step)
        seen[micro.task] += micro.rows.tolist()
    for table, rows in zip(tables, seen, strict=True):
        for start in range(0, len(rows) - len(table) + 1, len(table)):
            assert sorted(rows[start : start + len(table)]) == list(range(len(table)))


@FEW
@given(
    weights=WEIGHTS,
    seed=st.integers(0, 2**40),
    micro_batches_per_step=st.sampled_from((1, 2, 4, 8)),
    steps=st.integers(1, 12),
)
def test_what_is_drawn_is_the_same_for_any_ranks_and_wherever_it_is_resumed(
    weights: list[int],
    seed: int,
    micro_batches_per_step: int,
    steps: int,
    tables: list[FeatureTable],
) -> None:
    """A step of 8 micro-batches is 8 steps of one; a step asked for alone is the one in the row of all."""
    made, one = (
        batches(tables, weights, micro_batches_per_step, seed),
        batches(tables, weights, 1, seed),
    )
    whole = [
        [(micro.task, micro.rows.tolist()) for micro in made.step(step)] for step in range(steps)
    ]
    assert [pair for step in whole for pair in step] == [
        (micro.task, micro.rows.tolist())
        for step in range(steps * micro_batches_per_step)
        for micro in one.step(step)
    ]
    again = [
        (micro.task, micro.rows.tolist())
        for micro in batches(tables, weights, micro_batches_per_step, seed).step(steps - 1)
    ]
    assert again == whole[-1]
    for world in (divisor for divisor in (1, 2, 4, 8) if micro_batches_per_step % divisor == 0):
        shared = [whole[step][rank::world] for step in range(steps) for rank in range(world)]
        assert Counter(str(pair) for part in shared for pair in part) == Counter(
            str(pair) for step in whole for pair in step
        )


def test_what_is_drawn_is_what_the_steps_hold(tables: list[FeatureTable]) -> None:
    made = batches(tables, [5, 2, 1], 4, 3)
    wanted = [Counter[str]() for _ in tables]
    for step in range(9):
        for micro in made.step(step):
            table = tables[micro.task]
            wanted[micro.task] += Counter(
                micro_batches=1,
                rows=len(micro.rows),
                tokens=int(table.lengths[micro.rows].sum()),
                loss_tokens=int(table.label_counts[micro.rows].sum()),
            )
    assert made.consumed(9) == wanted


def test_a_subset_is_the_table_without_some_examples(tables: list[FeatureTable]) -> None:
    table = tables[0]
    left = FeatureSubset(table, [0, 7, 8, 999])
    assert (len(left), left.tokens, left.longest) == (57, left.lengths.sum(), left.lengths.max())
    assert not set(left.examples.tolist()) & {0, 7, 8}
    for row in range(len(left)):
        whole = int(np.flatnonzero(table.examples == left.examples[row])[0])
        assert left.lengths[row] == table.lengths[whole]
        assert left.column("input_ids", row).tolist() == table.column("input_ids", whole).tolist()


def test_steps() -> None:
    assert steps_for([10, 7], 4, 0.5) == 3
    assert steps_for([1], 8, 0.1) == 1


# The stage


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with features, in whose train split of world_srl are three sentences of its test split."""
    place = tmp_path_factory.mktemp("project") / "project"
    values = make_project(place)
    raw = place / "data/raw/srl"
    leaked = (
        "\n\n".join((raw / "test.conll").read_text(encoding="utf-8").split("\n\n")[:3]) + "\n\n"
    )
    with (raw / "train.conll").open("a", encoding="utf-8") as file:
        file.write("\n".join(f"leaked-{line}" if line else "" for line in leaked.split("\n")))
    write_params(place, values)
    recipe = place / "data_recipes/world_srl.yaml"
    allowed = recipe.read_text(encoding="utf-8").replace(
        "[unseen-label]", "[unseen-label, shared-row]"
    )
    recipe.write_text(allowed, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        generate("ner")
        for task in ("world_ner", "world_srl"):
            prepare(task)
            featurize(task)
        mixture_corpora("all")
    return place


@pytest.fixture
def mixed(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Mix with changed params of the mixture and of its training; the mixture's file."""
    place = tmp_path / "copy"
    shutil.copytree(project, place)
    monkeypatch.chdir(place)

    def run(pretrain: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        values = load_yaml(place / "params.yaml")
        values["mixtures"]["all"].update(changes)
        values["pretrain"]["all"].update(pretrain or {})
        write_params(place, values)
        mix("all")
        found: dict[str, Any] = json.loads(
            (place / "data/mixtures/all.json").read_text(encoding="utf-8")
        )
        return found

    return run


def test_leaks_are_reported(mixed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = mixed()
    (leak,) = found["leaks"]
    assert (leak["train"], leak["held_out"], leak["split"], leak["contained"]) == (
        "world_srl",
        "world_srl",
        "test",
        0,
    )
    assert leak["rows"] == leak["equal"] > 0
    assert found["dropped"] == {}
    assert (
        f"warning: {leak['rows']} test rows of world_srl are in training rows of world_srl"
        in capsys.readouterr().out
    )


def test_leaks_are_dropped_from_what_is_trained_on(
    mixed: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before, found = mixed(), mixed(on_leak="drop")
    dropped = found["dropped"]["world_srl"]
    rows = before["corpora"]["world_srl"]["rows"]
    assert (
        found["corpora"]["world_srl"]["dropped"] == len(dropped) == found["leaks"][0]["train_rows"]
    )
    assert dropped == list(range(rows - len(dropped), rows)), "they were added at the end"
    assert found["corpora"]["world_srl"]["rows"] == rows - len(dropped)
    assert f"dropped {len(dropped)} that leak" in capsys.readouterr().out
    whole, left = (
        TaskData.load(FEATURES / "world_srl", EXAMPLES / "world_srl", 5),
        TaskData.load(FEATURES / "world_srl", EXAMPLES / "world_srl", 5, dropped),
    )
    assert set(whole.train.examples.tolist()) - set(left.train.examples.tolist()) == set(dropped)
    assert mixed(on_leak="drop") == found


def test_leaks_can_make_it_fail(mixed: Any) -> None:
    with pytest.raises(
        UserError,
        match=r"params.yaml: mixtures.all: \d+ test rows of world_srl are in training rows of world_srl",
    ):
        mixed(on_leak="fail")


def test_epochs_are_warned_of(mixed: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert mixed()["warnings"] == []
    many = mixed({"epochs": 20})
    assert [warning.split(":")[0] for warning in many["warnings"]] == ["world_ner", "world_srl"]
    assert "are more than most_epochs (4); lower its share" in capsys.readouterr().out
    (few,) = mixed(
        {"epochs": 0.4}, shares={"world_ner": 1.0, "world_srl": 0.0001}, least_epochs=0.1
    )["warnings"]
    assert few.startswith("world_srl: 0.")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"shares": {"world_ner": 1.0}},
            "shares: found world_ner; give one for each of world_ner, world_srl",
        ),
        ({"shares": {"world_nre": 1.0}}, "no task 'world_nre'; did you mean 'world_ner'?"),
        ({"on_leak": "dorp"}, "did you mean 'drop'?"),
    ],
)
def test_a_users_mistake(changes: dict[str, Any], message: str, mixed: Any) -> None:
    with pytest.raises(UserError) as caught:
        mixed(**changes)
    assert message in str(caught.value)


def test_equal_shares(mixed: Any) -> None:
    found = mixed(temperature="equal")
    assert found["temperature"] is None
    assert [corpus["share"] for corpus in found["corpora"].values()] == [0.5, 0.5]


def test_epochs_are_those_of_the_run(mixed: Any) -> None:
    """What `mix` says before training is what the batches hold after it."""
    found = mixed(on_leak="drop")
    training = load_params().pretrain["all"]
    tasks = [
        TaskData.load(FEATURES / name, EXAMPLES / name, 5, found["dropped"].get(name, ()))
        for name in found["corpora"]
    ]
    made = TrainBatches(
        [task.train for task in tasks],
        [corpus["rate"] for corpus in found["corpora"].values()],
        training.tokens_per_micro_batch,
        training.micro_batches_per_step,
        7,
    )
    steps = steps_for(
        (packing.per_epoch for packing in made.packings),
        training.micro_batches_per_step,
        training.epochs,
    )
    for task, corpus in enumerate(found["corpora"].values()):
        assert corpus["epochs"] == made.epochs(task, steps)
        assert corpus["micro_batches"] == made.consumed(steps)[task]["micro_batches"]
