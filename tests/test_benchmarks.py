"""Every part of benchmarks/speed on a tiny backbone.

Formulas are compared with manual calculations. No test asserts a time.
"""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig

from benchmarks import learning
from benchmarks.learning import search_rate
from benchmarks.speed import __main__ as command
from benchmarks.speed import epoch, evaluate, gpu, memory, overhead, predict, scaling, start, step
from benchmarks.speed.methods import peft_inputs
from benchmarks.speed.setting import Setting, load_corpus
from benchmarks.speed.timing import Times, alternate, ratio
from pipeline.mixing.batches import IGNORE_INDEX
from pipeline.world import write_corpus
from tests.support import tiny
from tests.support.small_project import make_backbone

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::UserWarning", "ignore::DeprecationWarning"
)


@pytest.mark.parametrize(
    ("peak", "tried"),
    [(3, [2, 3, 4]), (5, [2, 3, 4, 5, 6]), (6, [2, 3, 4, 5, 6]), (0, [2, 3, 4, 1, 0])],
)
def test_the_search_for_a_rate_goes_on_from_the_ends(peak: int, tried: list[int]) -> None:
    rates, calls = [float(rate) for rate in range(7)], list[tuple[float, float]]()

    def validate(rate: float, best: float) -> float:
        calls.append((rate, best))
        return -abs(rate - peak)

    assert search_rate(rates, validate) == peak
    assert [rate for rate, _ in calls] == tried
    scores = [-abs(rate - peak) for rate, _ in calls]
    assert [best for _, best in calls] == [max([-math.inf, *scores[:n]]) for n in range(len(tried))]


def test_a_single_rate_is_tried_once() -> None:
    calls = list[float]()
    assert search_rate([0.5], lambda rate, _: calls.append(rate) or 1.0) == 0.5
    assert calls == [0.5]


def test_runs_with_another_first_seed_are_scored_and_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search leaves runs without a test score. The fake scores prefer a rate to each seed."""
    best_rates = {7: 0.02, 8: 0.04}

    def run(*arguments: Any) -> learning.Run:
        *_, rate, seed, _changes, best = arguments
        score = 50 - 100 * abs(rate - best_rates[seed])
        costs = {"rows_seen": 100, "trained": 1, "backbone": 100, "cpu_seconds": 1.0}
        return {"validation": score, "test": score if score > best else None, **costs}

    monkeypatch.setattr(learning, "run", run)
    out = tmp_path / "runs.jsonl"
    for seeds in ("7", "8,7", "8,7"):
        learning.measure(out, "ner:200", "multitask", seeds, ["epochs=10.0"], few=True)
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 3 + 4 + 1, "two searches, and one run again for its test score"
    learning.measure(out, "ner", "multitask", "7", ["rate=0.02"], few=False)
    capsys.readouterr()
    learning.table(out)
    learning.means(out)
    shown = capsys.readouterr().out
    assert "| ner | 200 | multitask | 0.02 | 50.0, 48.0 | 49.0 |" in shown
    assert "left out: 1 runs that are not of `new`" in shown
    assert "| ner | 49.0 |" in shown


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    """Small generated corpora and a random BERT with two layers."""
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
        num_virtual_tokens=3,
        sample=24,
    )


def rows_of(lines: Sequence[str], name: str) -> list[list[str]]:
    """The cells of the table rows that start with this name."""
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in lines
        if line.startswith(f"| {name} |")
    ]


def test_step_compares_every_method_on_both_corpora(setting: Setting) -> None:
    lines = list(step.run(setting))
    for method in step.METHODS:
        assert len(rows_of(lines, method)) == 4, "two corpora in two precisions"
    assert [row[2:] for row in rows_of(lines, step.FINE_TUNING)] == [["1", "1"]] * 4
    assert all(float(row[2].split()[0]) > 0 for row in rows_of(lines, "deep prompt"))


def test_goals_compare_float32_and_the_faster_precision_of_each_method() -> None:
    milliseconds = {"deep prompt": (4.0, 2.0), step.PEFT: (8.0, 16.0)}
    times = {
        (method, precision): Times([value], [value])
        for method, values in milliseconds.items()
        for precision, value in zip(("float32", "bfloat16"), values, strict=True)
    }
    goals = [("deep prompt", step.PEFT, 0.6)]
    (row,) = step.goal_rows(times, goals)
    assert row[:2] == ("deep prompt / peft prefix tuning", "0.6")
    assert [cell.split()[0] for cell in row[2:4]] == ["0.500"] * 2
    assert row[4] == "bfloat16 / float32"
    assert [cell.split()[0] for cell in row[5:]] == ["0.250"] * 2


def test_peft_has_the_same_labels_for_tags(setting: Setting) -> None:
    corpus = load_corpus(setting, "ner")
    batch = step.make_batches(setting, corpus, 64)[0]
    labels = peft_inputs(batch, corpus.eval_set.task.head)["labels"]
    mask = batch.position_mask
    assert torch.equal(labels.gather(1, batch.positions)[mask], batch.labels[mask])
    assert int((labels != IGNORE_INDEX).sum()) == int(mask.sum())


def test_peft_has_the_same_labels_for_answers(setting: Setting) -> None:
    corpus = load_corpus(setting, "qa")
    batch = step.make_batches(setting, corpus, 64)[0]
    inputs = peft_inputs(batch, corpus.eval_set.task.head)
    spans = torch.stack([inputs["start_positions"], inputs["end_positions"]], dim=1)
    assert torch.equal(spans, batch.positions.gather(1, batch.labels))


def test_memory_is_relative_to_each_base(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    process_mb, step_mb = memory.peak_memory(setting, "ner", "deep prompt", "bfloat16")
    assert 0 < step_mb < process_mb
    monkeypatch.setattr(memory, "peak_memory", lambda *_: (process_mb, step_mb))
    lines = list(memory.run(setting))
    assert [row[3:] for row in rows_of(lines, "deep prompt")] == [["1.00"] * 3] * 4
    assert [row[1] for row in rows_of(lines, "Gelu")] == ["2", "2"], "one in each of two layers"


def test_kept_tensors_are_those_that_autograd_saves() -> None:
    """The bytes are those of the hooks. The weights of a frozen layer do not count."""
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.GELU(), torch.nn.Linear(6, 2))
    model.requires_grad_(False)
    inputs = torch.randn(3, 4, requires_grad=True)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved = list[int]()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            saved.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(inputs).sum()
    kept = memory.kept_for_backward(loss, model)
    assert {name: [tuple(tensor.shape) for tensor in kept[name]] for name in kept} == {
        "Gelu": [(3, 6)]
    }
    assert saved == [3 * 6 * 4]


def test_epoch_measures_every_method(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(epoch, "VALIDATION_SENTENCES", 6)
    lines = list(epoch.run(setting))
    assert lines[0].startswith(
        "12 sentences of world_ner in float32, 3 epochs; F1 on 6 validation sentences"
    )
    for method in (epoch.PEFT, epoch.DEEP_PROMPT, epoch.TOP_HALF, epoch.CACHED):
        rows = rows_of(lines, method)
        assert len(rows) == 2, "one in each precision"
        for _, speed, by_cpu, padding, *_ in rows:
            assert float(speed) > 0
            assert float(by_cpu) > 0
            assert float(padding) >= 1


def test_clock_stops_during_validation() -> None:
    log = epoch.TrainingLog(seconds=(5.0, 4.0))
    log.start()
    assert log.validate(lambda: 50.0) == 50.0
    wall, cpu, f1 = log.scores[0]
    assert (wall >= 5.0, cpu >= 4.0, f1) == (True, True, 50.0)
    assert log.seconds_to(50.0) == (wall, cpu)
    assert log.seconds_to(50.1) is None


def test_overhead_measures_every_zero_stage(setting: Setting) -> None:
    lines = list(overhead.run(setting))
    assert rows_of(lines, overhead.PLAIN)[0][2:] == ["1", "1"]
    for zero in range(4):
        assert rows_of(lines, f"engine, ZeRO stage {zero}")


def test_evaluate_measures_both_corpora(setting: Setting) -> None:
    lines = list(evaluate.run(setting))
    assert float(rows_of(lines, "world_ner")[0][2]) > 0
    assert float(rows_of(lines, "world_qa")[0][2]) > 0


def test_predict_measures_both_corpora_in_both_precisions(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "NUM_ROWS", {"ner": 6, "qa": 4})
    monkeypatch.setattr(predict, "_window", lambda *_: (64, 2))  # some questions are long
    lines = list(predict.run(setting))
    for corpus in ("world_ner", "world_qa"):
        rows = rows_of(lines, corpus)
        assert [row[1] for row in rows] == ["float32", "bfloat16"]
        assert all(float(cell.split()[0]) > 0 for row in rows for cell in row[2:])


def test_start_measures_imports_and_skips_dvc_in_an_unfinished_project(setting: Setting) -> None:
    assert {"generate", "prepare", "finetune", "report"} <= set(start.stages())
    assert start.loaded_libraries("generate") == [False] * 3
    assert start.median_seconds([sys.executable, "-c", ""], repeats=1) > 0
    assert "not measured" in "".join(start.nothing_to_do(setting.project))


@pytest.mark.parametrize(
    ("backend", "methods"), [(None, tuple(gpu.GPU_METHODS)), ("eager", ("deep prompt",))]
)
def test_gpu_part_runs_on_a_tiny_shape(
    backend: str | None, methods: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu, "GPU_METHODS", {name: gpu.GPU_METHODS[name] for name in methods})
    shape = gpu.Shape("tiny", BertConfig(**tiny.SIZES), 2, 5, 3)
    lines = list(gpu.measure(shape, torch.device("cpu"), (backend,), 2))
    for method in methods:
        ((_, compiled, _, speed, of_peak, used, kernel),) = rows_of(lines, method)
        assert (compiled, of_peak, used) == (backend or "no", gpu.UNKNOWN, gpu.UNKNOWN)
        dropout = method == "peft prefix tuning"  # A CPU has only one kernel with dropout.
        assert kernel == ("attention_math" if dropout else "flash_attention_for_cpu")
        assert float(speed) > 0


def test_without_attention_no_kernel_is_named() -> None:
    assert gpu.attention_kernels(lambda: torch.ones(2, 2) @ torch.ones(2, 2)) == gpu.UNKNOWN


def test_the_page_of_results_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "gpu.md"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(command, "locate", lambda _: tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks.speed", "gpu", "--page", str(page)])
    command.main()
    text = page.read_text(encoding="utf-8")
    assert text == capsys.readouterr().out
    assert "### gpu" in text
    assert "### step" not in text


def test_operations_of_a_step_equal_a_manual_count() -> None:
    """C = 16, F = 24, 3 layers, 2 rows of 5 tokens, 4 virtual tokens."""
    shape = gpu.Shape("tiny", BertConfig(**tiny.SIZES), 2, 5, 4)
    weights = 10 * 2 * (4 * 16 * 16 + 16 * 24 + 24 * 16)
    # Attention to K keys: the scores, and the weighted mean of values.
    to_text, to_text_and_prompt = (2 * 2 * (2 * 5 * keys * 16) for keys in (5, 9))
    first_layer = 10 * 2 * 3 * 16 * 16
    assert gpu.step_operations(shape, train_backbone=True) == 3 * (3 * weights + 3 * to_text)
    assert (
        gpu.step_operations(shape, train_backbone=False)
        == 3 * (2 * weights + 3 * to_text_and_prompt) - first_layer
    )


def test_share_of_peak_uses_the_longest_matching_name() -> None:
    assert gpu.share_of_peak(98.9e12, "NVIDIA H100 80GB HBM3") == "10.0 %"
    assert gpu.share_of_peak(75.6e12, "NVIDIA H100 PCIe") == "10.0 %"
    assert gpu.share_of_peak(36.2e12, "NVIDIA L40S") == "10.0 %"
    assert gpu.share_of_peak(1e12, "some other device") == gpu.UNKNOWN


def test_ring_all_reduce_takes_the_calculated_time() -> None:
    """8 ranks send 8 parts of 1 MB 14 times: at 1 MB/s and 1 ms each, 14 * (1/8 s + 1 ms)."""
    assert scaling.ring_seconds(1_000_000, 8, 1e6, 1e-3) == pytest.approx(1.764)
    assert scaling.ring_seconds(1_000_000, 1, 1e6, 1e-3) == 0


def test_scaling_reduces_the_gradients_of_prompt_and_head(setting: Setting) -> None:
    rows = rows_of(list(scaling.run(setting)), "deep prompt")
    num_classes = len(load_corpus(setting, "ner").eval_set.classes)
    assert {row[1] for row in rows} == {f"{4 * (2 * 2 * 2 * 3 * 16 + num_classes * 33):,}"}


def test_methods_alternate_after_a_warm_up() -> None:
    calls: list[tuple[str, int]] = []

    def method(name: str) -> Callable[[int], None]:
        return lambda number: calls.append((name, number))

    times = alternate({name: method(name) for name in "ab"}, rounds=2, calls=2)
    first_round = [("a", 0), ("a", 1), ("b", 0), ("b", 1)]
    second_round = [("a", 2), ("a", 3), ("b", 2), ("b", 3)]
    assert calls == [*first_round, *first_round, *second_round]
    for measured in times.values():
        assert (len(measured.wall), len(measured.cpu)) == (2, 2)


def test_ratio_is_the_median_over_rounds() -> None:
    assert ratio([1.0, 2.0, 9.0], [1.0, 1.0, 1.0]) == "2.000 (1.500 to 5.500)"


def test_generated_corpora_replace_missing_corpora(setting: Setting) -> None:
    assert load_corpus(setting, "qa", "validation", 5).name == "world_qa"
    assert len(load_corpus(setting, "ner", "validation", 5).eval_set.examples) == 5
