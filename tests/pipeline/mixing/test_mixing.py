"""Mixing end to end: properties of shares, epochs, ranks and resuming, and the stage `mix`."""

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

FEW_EXAMPLES = settings(max_examples=40, deadline=None)
SIZES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 10**6), min_size=1)


@FEW_EXAMPLES
@given(
    weights=st.lists(st.integers(1, 1000), min_size=1, max_size=6),
    power=st.integers(0, 12),
    window=st.integers(0, 500),
)
def test_the_count_of_a_corpus_in_an_aligned_window_differs_from_its_share_by_less_than_1(
    weights: list[int], power: int, window: int
) -> None:
    """A window is 2^m micro-batches from a multiple of 2^m on."""
    rates = sampling_rates(
        {str(i): weight for i, weight in enumerate(weights)}, MixtureParams("all", 1.0)
    )
    schedule, size = Schedule(tuple(rates.values())), 1 << power
    for corpus, rate in enumerate(rates.values()):
        before, after = (
            schedule.count(corpus, window * size),
            schedule.count(corpus, (window + 1) * size),
        )
        assert abs(after - before - rate * size / RATE_SCALE) < 1


@FEW_EXAMPLES
@given(sizes=SIZES, num_micro_batches=st.integers(8, 5000))
def test_every_corpus_has_at_least_one_micro_batch(
    sizes: dict[str, int], num_micro_batches: int
) -> None:
    rates = sampling_rates(sizes, MixtureParams("all", 1.0, 10**6), num_micro_batches)
    assert sum(rates.values()) == RATE_SCALE
    schedule = Schedule(tuple(rates.values()))
    assert all(schedule.count(corpus, num_micro_batches) >= 1 for corpus in range(len(rates)))


def test_only_small_shares_are_raised() -> None:
    sizes = {"tiny": 1, "large": 500_000, "medium": 250_000}
    rates = sampling_rates(sizes, MixtureParams("all", 1.0, 10**6), num_micro_batches=100)
    assert rates["tiny"] == RATE_SCALE >> 6
    assert rates["large"] == pytest.approx(2 * rates["medium"], abs=2)


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"temperature": 1.0}, {"a": 0.1, "b": 0.9}),
        ({"temperature": "equal"}, {"a": 0.5, "b": 0.5}),
        ({"temperature": "equal", "weights": {"a": 3.0}}, {"a": 0.75, "b": 0.25}),
        ({"temperature": 1.0, "cap": 100}, {"a": 0.5, "b": 0.5}),
        ({"shares": {"a": 1.0, "b": 3.0}}, {"a": 0.25, "b": 0.75}),
    ],
)
def test_temperature_weights_cap_and_shares(
    params: dict[str, Any], expected: dict[str, float]
) -> None:
    rates = sampling_rates({"a": 100, "b": 900}, MixtureParams("all", **params))
    assert {name: rate / RATE_SCALE for name, rate in rates.items()} == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.parametrize(
    ("params", "num_micro_batches", "message"),
    [
        ({"shares": {"a": 1.0}}, RATE_SCALE, "shares: found a; give one for each of a, b"),
        ({"shares": {"a": 1.0, "c": 1.0}}, RATE_SCALE, "shares: found a, c"),
        ({}, 1, "1 micro-batches are too few to give each of 2 corpora at least one"),
    ],
)
def test_impossible_shares_are_refused(
    params: dict[str, Any], num_micro_batches: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sampling_rates({"a": 1, "b": 1}, MixtureParams("all", **params), num_micro_batches)


def test_a_small_temperature_gives_the_largest_corpus_nearly_everything() -> None:
    rates = sampling_rates(
        {"a": 100_000, "b": 90_000}, MixtureParams("all", temperature=0.01), 1024
    )
    assert rates == {"a": RATE_SCALE * 1023 // 1024, "b": RATE_SCALE // 1024}


# Micro-batches


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[FeatureTable]:
    folder = tmp_path_factory.mktemp("tables")
    return [
        tiny.table(folder, "classes", 60, 0),
        tiny.table(folder, "classes", 25, 1),
        tiny.table(folder, "positions", 40, 2),
    ]


def make_batches(
    tables: list[FeatureTable], weights: list[int], micro_batches_per_step: int, seed: int
) -> TrainBatches:
    rates = sampling_rates(
        {str(i): weight for i, weight in enumerate(weights)}, MixtureParams("all", 1.0)
    )
    return TrainBatches(tables, list(rates.values()), 64, micro_batches_per_step, seed)


WEIGHTS = st.lists(st.integers(1, 20), min_size=3, max_size=3)


@FEW_EXAMPLES
@given(weights=WEIGHTS, seed=st.integers(0, 2**40))
def test_each_row_occurs_once_per_epoch(
    weights: list[int], seed: int, tables: list[FeatureTable]
) -> None:
    batches = make_batches(tables, weights, 1, seed)
    consumed: list[list[int]] = [[] for _ in tables]
    for step in range(200):
        (micro,) = batches.step(step)
        consumed[micro.task] += micro.rows.tolist()
    for table, rows in zip(tables, consumed, strict=True):
        for start in range(0, len(rows) - len(table) + 1, len(table)):
            assert sorted(rows[start : start + len(table)]) == list(range(len(table)))


@FEW_EXAMPLES
@given(
    weights=WEIGHTS,
    seed=st.integers(0, 2**40),
    micro_batches_per_step=st.sampled_from((1, 2, 4, 8)),
    steps=st.integers(1, 12),
)
def test_micro_batches_do_not_depend_on_ranks_step_size_or_the_step_of_a_resume(
    weights: list[int],
    seed: int,
    micro_batches_per_step: int,
    steps: int,
    tables: list[FeatureTable],
) -> None:
    """A step of 8 micro-batches equals 8 steps of 1; a new object gives the same last step."""
    batches = make_batches(tables, weights, micro_batches_per_step, seed)
    all_steps = [contents(batches, step) for step in range(steps)]
    single = make_batches(tables, weights, 1, seed)
    assert [pair for step in all_steps for pair in step] == [
        pair for step in range(steps * micro_batches_per_step) for pair in contents(single, step)
    ]
    resumed = make_batches(tables, weights, micro_batches_per_step, seed)
    assert contents(resumed, steps - 1) == all_steps[-1]
    for world in (divisor for divisor in (1, 2, 4, 8) if micro_batches_per_step % divisor == 0):
        parts = [step[rank::world] for step in all_steps for rank in range(world)]
        assert Counter(str(pair) for part in parts for pair in part) == Counter(
            str(pair) for step in all_steps for pair in step
        )


def contents(batches: TrainBatches, step: int) -> list[tuple[int, list[int]]]:
    """The task and the rows of each micro-batch of a step."""
    return [(micro.task, micro.rows.tolist()) for micro in batches.step(step)]


def test_the_counts_are_those_of_the_rows(tables: list[FeatureTable]) -> None:
    batches = make_batches(tables, [5, 2, 1], 4, 3)
    micro_batches = [micro for step in range(9) for micro in batches.step(step)]
    expected = [Counter[str]() for _ in tables]
    for micro in micro_batches:
        table = tables[micro.task]
        expected[micro.task] += Counter(
            micro_batches=1,
            rows=len(micro.rows),
            tokens=int(table.lengths[micro.rows].sum()),
            loss_tokens=int(table.label_counts[micro.rows].sum()),
        )
    assert batches.count(micro_batches) == expected
    assert [set(counts.values()) for counts in batches.count([])] == [{0}] * len(tables)


def test_a_subset_equals_the_table_without_some_examples(tables: list[FeatureTable]) -> None:
    table = tables[0]
    subset = FeatureSubset(table, [0, 7, 8, 999])
    assert len(subset) == 57
    assert (subset.tokens, subset.longest) == (subset.lengths.sum(), subset.lengths.max())
    assert not set(subset.examples.tolist()) & {0, 7, 8}
    for row in range(len(subset)):
        table_row = int(np.flatnonzero(table.examples == subset.examples[row])[0])
        assert subset.lengths[row] == table.lengths[table_row]
        input_ids = subset.column("input_ids", row).tolist()
        assert input_ids == table.column("input_ids", table_row).tolist()


def test_steps_for_rounds_up_and_is_at_least_1() -> None:
    assert steps_for([10, 7], 4, 0.5) == 3
    assert steps_for([1], 8, 0.1) == 1


# The stage


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project with features. Three test sentences of world_srl leak into training."""
    root = tmp_path_factory.mktemp("project") / "project"
    values = make_project(root)
    raw = root / "data/raw/srl"
    leaked = (
        "\n\n".join((raw / "test.conll").read_text(encoding="utf-8").split("\n\n")[:3]) + "\n\n"
    )
    with (raw / "train.conll").open("a", encoding="utf-8") as file:
        file.write("\n".join(f"leaked-{line}" if line else "" for line in leaked.split("\n")))
    write_params(root, values)
    recipe = root / "data_recipes/world_srl.yaml"
    allowed = recipe.read_text(encoding="utf-8").replace(
        "[unseen-label]", "[unseen-label, shared-row]"
    )
    recipe.write_text(allowed, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        generate("ner")
        for task in ("world_ner", "world_srl"):
            prepare(task)
            featurize(task)
        mixture_corpora("all")
    return root


@pytest.fixture
def run_mix(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that runs the stage with changed params and returns the content of its file."""
    root = tmp_path / "copy"
    shutil.copytree(project, root)
    monkeypatch.chdir(root)

    def run(pretrain: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
        values = load_yaml(root / "params.yaml")
        values["mixtures"]["all"].update(changes)
        values["pretrain"]["all"].update(pretrain or {})
        write_params(root, values)
        mix("all")
        mixture: dict[str, Any] = json.loads(
            (root / "data/mixtures/all.json").read_text(encoding="utf-8")
        )
        return mixture

    return run


def test_leaks_are_reported(run_mix: Any, capsys: pytest.CaptureFixture[str]) -> None:
    mixture = run_mix()
    (leak,) = mixture["leaks"]
    assert (leak["train"], leak["held_out"], leak["split"], leak["contained"]) == (
        "world_srl",
        "world_srl",
        "test",
        0,
    )
    assert leak["rows"] == leak["equal"] > 0
    assert mixture["dropped"] == {}
    assert (
        f"warning: the texts of {leak['rows']} test rows of world_srl are in training rows of "
        "world_srl" in capsys.readouterr().out
    )


def test_leaks_are_dropped_from_the_training_rows(
    run_mix: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    before, mixture = run_mix(), run_mix(on_leak="drop")
    dropped = mixture["dropped"]["world_srl"]
    rows = before["corpora"]["world_srl"]["rows"]
    assert (
        mixture["corpora"]["world_srl"]["dropped"]
        == len(dropped)
        == mixture["leaks"][0]["train_rows"]
    )
    assert dropped == list(range(rows - len(dropped), rows)), "the leaked sentences are the last"
    assert mixture["corpora"]["world_srl"]["rows"] == rows - len(dropped)
    assert f"dropped {len(dropped)} that leak" in capsys.readouterr().out
    full, subset = (
        TaskData.load(FEATURES / "world_srl", EXAMPLES / "world_srl", 5),
        TaskData.load(FEATURES / "world_srl", EXAMPLES / "world_srl", 5, dropped),
    )
    assert set(full.train.examples.tolist()) - set(subset.train.examples.tolist()) == set(dropped)
    assert run_mix(on_leak="drop") == mixture


def test_on_leak_fail_refuses_leaks(run_mix: Any) -> None:
    with pytest.raises(
        UserError,
        match=r"params.yaml: mixtures.all: the texts of \d+ test rows of world_srl "
        r"are in training rows of world_srl",
    ):
        run_mix(on_leak="fail")


def test_too_many_or_too_few_epochs_cause_a_warning(
    run_mix: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_mix()["warnings"] == []
    many = run_mix({"epochs": 20})
    assert [warning.split(":")[0] for warning in many["warnings"]] == ["world_ner", "world_srl"]
    assert "are more than max_epochs (4); lower its share" in capsys.readouterr().out
    (few,) = run_mix(
        {"epochs": 0.4}, shares={"world_ner": 1.0, "world_srl": 0.0001}, min_epochs=0.1
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
def test_wrong_mixture_params_are_refused_by_name(
    changes: dict[str, Any], message: str, run_mix: Any
) -> None:
    with pytest.raises(UserError) as caught:
        run_mix(**changes)
    assert message in str(caught.value)


def test_temperature_equal_gives_equal_shares(run_mix: Any) -> None:
    mixture = run_mix(temperature="equal")
    assert mixture["temperature"] is None
    assert [corpus["share"] for corpus in mixture["corpora"].values()] == [0.5, 0.5]


def test_the_epochs_in_the_mixture_equal_those_of_training(run_mix: Any) -> None:
    mixture = run_mix(on_leak="drop")
    training = load_params().pretrain["all"]
    tasks = [
        TaskData.load(FEATURES / name, EXAMPLES / name, 5, mixture["dropped"].get(name, ()))
        for name in mixture["corpora"]
    ]
    batches = TrainBatches(
        [task.train for task in tasks],
        [corpus["rate"] for corpus in mixture["corpora"].values()],
        training.tokens_per_micro_batch,
        training.micro_batches_per_step,
        7,
    )
    steps = steps_for(
        (corpus.per_epoch for corpus in batches.task_batches),
        training.micro_batches_per_step,
        training.epochs,
    )
    counts = batches.count([micro for step in range(steps) for micro in batches.step(step)])
    for task, corpus in enumerate(mixture["corpora"].values()):
        assert corpus["epochs"] == batches.epochs(task, steps)
        assert corpus["micro_batches"] == counts[task]["micro_batches"]
