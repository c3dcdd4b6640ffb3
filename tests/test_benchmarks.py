"""Every part of benchmarks/speed on a tiny backbone; its arithmetic held against figures by hand. No time is asserted."""

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from transformers import BertConfig

from benchmarks.speed import epoch, evaluate, gpu, memory, overhead, scaling, start, step
from benchmarks.speed.setting import Setting, corpus
from benchmarks.speed.timing import Times, alternate, ratio
from benchmarks.speed.ways import peft_inputs
from pipeline.mixing.batches import IGNORE_INDEX
from pipeline.world import write_corpus
from tests.support import tiny
from tests.support.small_project import make_backbone

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
)


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Generated corpora of a few rows, a random BERT of two layers."""
    folder = tmp_path_factory.mktemp("speed")
    write_corpus("ner", folder / "words", 40, 7)
    make_backbone(folder / "backbone", folder / "words")
    scratch = folder / "scratch"
    scratch.mkdir()
    return Setting(
        folder / "backbone",
        None,
        scratch,
        folder,
        rounds=2,
        calls=1,
        rows=12,
        virtual_tokens=3,
        sample=24,
    )


def rows_of(lines: Sequence[str], name: str) -> list[list[str]]:
    """The cells of the tables' rows that begin with a name."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith(f"| {name} |")
    ]


def test_step(setting: Setting) -> None:
    lines = list(step.run(setting))
    for way in step.WAYS:
        assert len(rows_of(lines, way)) == 2  # both corpora
    assert [row[2:] for row in rows_of(lines, step.TUNED)] == [["1", "1"]] * 2
    assert all(float(row[2].split()[0]) > 0 for row in rows_of(lines, "deep prompt"))


@pytest.mark.parametrize("kind", ["ner", "qa"])
def test_both_ways_learn_the_same_labels(setting: Setting, kind: str) -> None:
    found = corpus(setting, kind)
    batch = step.batches_of(setting, found, 64)[0]
    inputs = peft_inputs(batch, found.split.task.head)
    if kind == "qa":
        chosen = torch.stack([inputs["start_positions"], inputs["end_positions"]], dim=1)
        rows = zip(batch.positions.tolist(), batch.labels.tolist(), strict=True)
        assert chosen.tolist() == [
            [positions[label] for label in labels] for positions, labels in rows
        ]
    else:
        read = inputs["labels"].gather(1, batch.positions)[batch.position_mask]
        assert torch.equal(read, batch.labels[batch.position_mask])
        assert int((inputs["labels"] != IGNORE_INDEX).sum()) == int(batch.position_mask.sum())


def test_memory(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    peak, own = memory.peak_memory(setting, "ner", "deep prompt")
    assert 0 < own < peak
    monkeypatch.setattr(memory, "peak_memory", lambda *_: (peak, own))
    assert all(row[3:] == ["1.00"] * 3 for row in rows_of(list(memory.run(setting)), "deep prompt"))


def test_epoch(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch, "HELD_OUT", 6)
    lines = list(epoch.run(setting))
    assert lines[0].startswith("12 sentences of world_ner, 3 epochs; F1 on 6 of validation")
    for way in (epoch.PEFT, epoch.OURS, epoch.TOP, epoch.STORED):
        ((_, speed, by_cpu, padding, *_),) = rows_of(lines, way)
        assert float(speed) > 0
        assert float(by_cpu) > 0
        assert float(padding) >= 1


def test_a_course_stands_still_while_it_is_scored() -> None:
    course = epoch.Course(seconds=(5.0, 4.0))
    course.begin()
    assert course.check(lambda: 50.0) == 50.0
    wall, cpu, f1 = course.scores[0]
    assert (wall >= 5.0, cpu >= 4.0, f1) == (True, True, 50.0)
    assert course.until(50.0) == (wall, cpu)
    assert course.until(50.1) is None


def test_overhead(setting: Setting) -> None:
    lines = list(overhead.run(setting))
    assert rows_of(lines, overhead.PLAIN)[0][2:] == ["1", "1"]
    for zero in range(4):
        assert rows_of(lines, f"engine, ZeRO stage {zero}")


def test_evaluate(setting: Setting) -> None:
    lines = list(evaluate.run(setting))
    assert float(rows_of(lines, "world_ner")[0][2]) > 0
    assert float(rows_of(lines, "world_qa")[0][2]) > 0


def test_start(setting: Setting) -> None:
    assert {"generate", "prepare", "finetune", "report"} <= set(start.stages())
    assert start.loaded("generate") == [False] * 3
    assert start.seconds([sys.executable, "-c", ""], repeats=1) > 0
    assert "not measured" in "".join(start.nothing_to_do(setting.project))


@pytest.mark.parametrize(
    ("backend", "ways"), [(None, tuple(gpu.WAYS)), ("eager", ("deep prompt",))]
)
def test_gpu_on_a_tiny_shape(
    backend: str | None, ways: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "WAYS", {way: gpu.WAYS[way] for way in ways})
    shape = gpu.Shape("tiny", BertConfig(**tiny.SIZES), 2, 5, 3)
    lines = list(gpu.measured(shape, torch.device("cpu"), (backend,), 2))
    for way in ways:
        ((_, compiled, _, speed, of_peak, used),) = rows_of(lines, way)
        assert (compiled, of_peak, used) == (backend or "no", gpu.DASH, gpu.DASH)
        assert float(speed) > 0


def test_operations_of_a_step_by_hand() -> None:
    """Against products counted one by one: C 16, F 24, 3 layers, 2 rows of 5 tokens, 4 virtual ones."""
    shape = gpu.Shape("tiny", BertConfig(**tiny.SIZES), 2, 5, 4)
    weights = 10 * 2 * (4 * 16 * 16 + 16 * 24 + 24 * 16)
    to_text, to_all = (
        2 * 2 * (2 * 5 * keys * 16) for keys in (5, 9)
    )  # scores and their mean of values
    assert gpu.operations(shape, full=True) == 3 * (3 * weights + 3 * to_text)
    assert (
        gpu.operations(shape, full=False) == 3 * (2 * weights + 3 * to_all) - 10 * 2 * 3 * 16 * 16
    )


def test_share_of_the_peak() -> None:
    assert gpu.share(98.9e12, "NVIDIA H100 80GB HBM3") == "10.0 %"
    assert gpu.share(75.6e12, "NVIDIA H100 PCIe") == "10.0 %"
    assert gpu.share(36.2e12, "NVIDIA L40S") == "10.0 %"
    assert gpu.share(1e12, "some other device") == gpu.DASH


def test_scaling(setting: Setting) -> None:
    """8 ranks send each of 8 parts of 1 MB 14 times: at 1 MB a second and 1 ms each, 14 * (1/8 s + 1 ms)."""
    assert scaling.ring(1_000_000, 8, 1e6, 1e-3) == pytest.approx(1.764)
    assert scaling.ring(1_000_000, 1, 1e6, 1e-3) == 0
    found = rows_of(list(scaling.run(setting)), "deep prompt")
    classes = len(corpus(setting, "ner").split.classes)
    assert {row[1] for row in found} == {f"{4 * (2 * 2 * 2 * 3 * 16 + classes * 33):,}"}


def test_ways_take_turns() -> None:
    calls: list[tuple[str, int]] = []
    times = alternate(
        {name: lambda number, name=name: calls.append((name, number)) for name in "ab"}, 2, 2
    )  # type: ignore[misc]
    turn = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    assert calls == [*turn, *turn, *(((name, number + 2)) for name, number in turn)]
    assert {name: (len(each.wall), len(each.cpu)) for name, each in times.items()} == {
        "a": (2, 2),
        "b": (2, 2),
    }
    assert isinstance(times["a"], Times)


def test_a_ratio_is_the_median_of_rounds() -> None:
    assert ratio([1.0, 2.0, 9.0], [1.0, 1.0, 1.0]) == "2.000 (1.500 to 5.500)"


def test_missing_corpora_are_replaced(setting: Setting, tmp_path: Path) -> None:
    assert corpus(setting, "qa", "validation", 5).name == "world_qa"
    assert len(corpus(setting, "ner", "validation", 5).split.examples) == 5
