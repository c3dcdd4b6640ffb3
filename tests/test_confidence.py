"""benchmarks/confidence: formulas by hand, and methods on answers with and without a signal."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.confidence import methods
from benchmarks.confidence.answers import (
    FEATURES,
    Answers,
    Record,
    answers_of,
    read_records,
    record_of,
)
from benchmarks.confidence.collect import MODELS, Collector, Sizes
from benchmarks.confidence.retrieval import Retriever, augment, own_positions
from benchmarks.confidence.table import MEASURES, measured, table
from benchmarks.confidence.tuning import (
    OBJECTIVES,
    candidate_scores,
    margin_objective,
    softmax_objective,
    tune,
)
from benchmarks.confidence.variants import canonical, group_variants, merge_variants
from pipeline.analysis.calibration import Decisions
from pipeline.errors import UserError
from pipeline.mixing.batches import Batch, TrainBatches
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompted_model import PromptedModel, part_of
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.multiple_choice import Example as Choices
from pipeline.tasks.span_extraction import Answer, Example
from pipeline.world import write_corpus
from stages.featurize import featurize
from stages.finetune import finetune
from stages.prepare import prepare
from stages.runtime.params import load_params
from tests.support import tiny
from tests.support.paths import ROOT
from tests.support.small_project import TRAINING, make_backbone, params, write_params
from tests.support.tiny_features import table as feature_table

FITTED = [
    methods.agreement,
    methods.boosting,
    methods.boosting_with_agreement,
    methods.logistic,
    methods.logistic_with_agreement,
]


def record(texts: list[str], logits: list[float], gold: list[str], **more: Any) -> Record:
    words = {"question_words": 3, "context_words": 20, "agreement": 0.5}
    return {"id": "a", "texts": texts, "logits": logits, "gold": gold, **words, **more}


def drawn(size: int, signal: bool) -> Answers:
    """Answers that are right with the probability of the best candidate, or that are all alike."""
    generator = np.random.default_rng(0)
    best = generator.uniform(-4, 4, size) if signal else np.zeros(size)
    records = [record(["x", "y"], [-9.0, float(value), 0.0], ["x"]) for value in best]
    answers = answers_of(records)
    right = generator.random(size) < answers.decisions.confidence()
    decisions = Decisions(answers.decisions.logits, answers.decisions.taken, right)
    return Answers(decisions, answers.features)


def test_the_features_of_an_answer_by_hand() -> None:
    logs = [math.log(0.2), math.log(0.5), math.log(0.3)]
    answers = answers_of([record(["of Bo", "Bo"], logs, ["Bo", "Of  bo!"]), record([], [1.0], [])])
    entropy = -sum(p * math.log(p) for p in (0.2, 0.5, 0.3))
    expected = [math.log(0.5), 0.2, entropy, 0.2, 2, 3, 20, 0.5]
    assert dict(zip(FEATURES, answers.features[0], strict=True)) == pytest.approx(
        dict(zip(FEATURES, expected, strict=True))
    )
    assert answers.decisions.right.tolist() == [True, False]
    assert answers.decisions.taken.tolist() == [1, 0], "0 is no answer"


@pytest.mark.parametrize("method", FITTED)
def test_a_method_without_a_signal_gives_the_base_rate(method: methods.Method) -> None:
    answers = drawn(300, signal=False)
    confidence = method(answers, 7)(answers)
    assert confidence == pytest.approx(answers.decisions.right.mean(), abs=1e-3)


@pytest.mark.parametrize("method", FITTED)
def test_a_method_is_deterministic_and_needs_rows_of_both_kinds(method: methods.Method) -> None:
    answers = drawn(300, signal=True)
    assert np.array_equal(method(answers, 7)(answers), method(answers, 7)(answers))
    with pytest.raises(UserError, match=r"49 validation questions are too few.*at least 50"):
        method(answers.take(np.arange(49)), 7)
    right = answers.take(answers.decisions.right)
    assert method(right, 7)(answers).tolist() == [1.0] * 300


def test_classifiers_find_the_signal_and_are_selected_on_other_folds() -> None:
    answers = drawn(600, signal=True)
    for method in (methods.boosting, methods.logistic):
        confidence = methods.cross_validated(method, answers, 7)
        assert np.corrcoef(confidence, answers.decisions.confidence())[0, 1] > 0.9
    rates = methods.cross_validated(methods.base_rate, answers, 7)
    assert len(set(rates.tolist())) > 1, "a fold's rate is that of the other folds"
    total = answers.decisions.right.sum()
    folds = np.random.default_rng(7).permutation(600) % methods.NUM_FOLDS
    others = total - answers.decisions.right[folds == 2].sum()
    assert rates[folds == 2] == pytest.approx(others / 480)


@pytest.mark.parametrize(
    ("texts", "groups"),
    [
        (["the Rhine", "Rhine", "Rhine,", "river"], [0, 0, 0, 3]),
        (["twenty", "20", "The 20", "second", "2nd", "2"], [0, 0, 0, 3, 3, 5]),
        (["William II of Normandy", "William II", "Normandy"], [0, 1, 2]),
        (["Ada Lovelace", "Lovelace", "Ada", "Ada Byron"], [0, 0, 0, 3]),
        (["Lovelace", "Ada Lovelace", "lovelace and more"], [0, 0, 2]),
        ([], []),
    ],
)
def test_variants_differ_in_articles_marks_numbers_or_the_length_of_a_name(
    texts: list[str], groups: list[int]
) -> None:
    assert group_variants(texts) == groups
    assert canonical("The Twenty-five, years") == "20 5 years"


def test_variants_add_up_and_the_best_group_comes_first() -> None:
    logs = [math.log(value) for value in (0.1, 0.4, 0.3, 0.2)]
    merged = merge_variants(record(["no", "Bo", "the Bo"], logs, []))
    assert merged["texts"] == ["Bo", "no"]
    assert np.exp(merged["logits"]) == pytest.approx([0.1, 0.5, 0.4])
    assert merge_variants(record([], [1.0], []))["logits"] == [1.0]


def batch_of(labels: list[list[int]], mask: list[list[bool]]) -> Batch:
    nothing = torch.zeros(1)
    rows = np.arange(len(labels))
    return Batch(
        0, rows, nothing, nothing, nothing, nothing, torch.tensor(mask), torch.tensor(labels)
    )


LOGITS = torch.tensor([[[1.0, 2.0], [4.0, 0.0], [0.0, 1.0], [9.0, 9.0]]])
BATCH = batch_of([[1, 1]], [[True, True, True, False]])
OTHERS = [4.0 + 1.0, 1.0 + 2.0, 0.0 + 1.0]  # (1, 2), no answer, (2, 2); the last is padding


def test_the_candidates_are_the_right_span_and_the_best_others() -> None:
    scores = candidate_scores(LOGITS, BATCH)[0]
    assert scores[:4].tolist() == [4.0, *OTHERS]
    assert scores[4:].isneginf().all()


def test_the_objectives_by_hand() -> None:
    model: Any = None
    softmax = -math.log(math.exp(4) / sum(math.exp(score) for score in [4.0, *OTHERS]))
    assert float(softmax_objective(model, LOGITS, BATCH)) == pytest.approx(softmax)
    hinge = (1 + 5 - 4) + 0 + 0
    assert float(margin_objective(model, LOGITS, BATCH)) == pytest.approx(hinge)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_tuning_changes_the_prompt_only_and_reduces_the_loss(
    objective: str, tmp_path: Path
) -> None:
    body = tiny.backbone()
    heads = Heads(["positions"], [2], body.hidden_size, 0)
    model = PromptedModel(body, tiny.prompt_for("deep", body), heads, train_backbone=False)
    data = feature_table(tmp_path, "positions", 24, 0)
    batches = TrainBatches([data], [1 << 20], 60, 1, 7)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    losses = [tune_once(model, batches, objective) for _ in range(6)]
    changed = {
        part_of(name)
        for name, value in model.named_parameters()
        if not torch.equal(value, before[name])
    }
    assert changed == {"prompt"}
    assert losses[-1] < losses[0]


def tune_once(model: PromptedModel, batches: TrainBatches, objective: str) -> float:
    """The sum of the losses during one pass."""
    losses = list[float]()

    def recorded(of: PromptedModel, logits: Tensor, batch: Batch) -> Tensor:
        loss = OBJECTIVES[objective](of, logits, batch)
        losses.append(float(loss.detach()))
        return loss

    tune(model, batches, {"prompt": 0.05}, recorded, 0)
    return sum(losses)


def test_text_before_a_context_moves_no_answer() -> None:
    example = Example("a", "Who?", "Bo ran.", (Answer("Bo", 0),))
    (augmented,) = augment([example], ["Ada sat."])
    assert (augmented.context, augmented.answers) == ("Ada sat. Bo ran.", ())
    begins, ends = np.array([0, 0, 4, 9, 12]), np.array([0, 3, 7, 11, 15])
    logits = np.arange(10.0).reshape(5, 2)
    (own,) = own_positions([WindowLogits(begins, ends, logits)], "Ada sat.")
    spans = zip(own.begins[1:], own.ends[1:], strict=True)
    assert [example.context[begin:end] for begin, end in spans] == ["Bo", "ran"]
    assert own.logits.tolist() == [[0, 1], [6, 7], [8, 9]], "the first row is no answer"


def test_the_nearest_training_context_is_never_the_own_one(tmp_path: Path) -> None:
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "a.txt").write_text("ada sat here bo ran there cy ate")
    make_backbone(tmp_path / "backbone", tmp_path / "words")
    backbone = Backbone.load(tmp_path / "backbone")
    contexts = ["ada sat here", "bo ran there", "cy ate", "bo ran there"]
    retriever = Retriever(contexts, backbone, Tokenizer(tmp_path / "backbone"))
    assert np.linalg.norm(retriever.embed(contexts), axis=1) == pytest.approx(1.0)
    asked = [Example("a", "bo ran there", "cy", ()), Example("b", "bo ran there", contexts[1], ())]
    nearest = retriever.nearest(asked)
    assert nearest[0] == contexts[1]
    assert nearest[1] != contexts[1]


def test_the_table_compares_each_method_with_the_temperature(tmp_path: Path) -> None:
    generator, path = np.random.default_rng(0), tmp_path / "answers.jsonl"
    with path.open("w") as file:
        for split in ("validation", "test"):
            for best in generator.uniform(0, 6, 120):
                right = generator.random() < 1 / (1 + np.exp(-best / 3))
                run = {"arm": "multitask", "model": "plain", "data": "qa", "split": split}
                values = record(["x", "y"], [-9.0, float(best), 0.0], ["x"] if right else ["z"])
                file.write(json.dumps(run | values) + "\n")
    assert [len(records) for records in read_records(path).values()] == [120, 120]
    header, _, *lines = table(path, "qa", 7, 100)
    cells = {line.split(" | ")[2]: line.strip("| ").split(" | ") for line in lines}
    assert header.count("|") == lines[0].count("|")
    assert "tuned, margin" not in cells, "there are no answers of a tuned model"
    assert not any("*" in cell for cell in cells["temperature"])
    assert "*" in cells["probability"][5] + cells["probability"][6], "it is too confident"
    assert cells["probability"][4] == cells["variants"][4], "the same answers"


def test_the_measures_by_hand() -> None:
    confidence, right = np.array([0.9, 0.9, 0.1, 0.1]), np.array([True, True, False, True])
    result = measured(MEASURES, confidence, right, 50)
    assert result.values == pytest.approx(
        {"exact": 75.0, "ECE": (0.1 + 0.4) / 2, "Brier": (3 * 0.01 + 0.81) / 4, "AURC": 0.5 * 0.25}
    )
    draws = np.random.default_rng(7).integers(0, 4, (50, 4))
    expected = [100 * right[draw].mean() for draw in draws]
    assert result.samples["exact"].tolist() == pytest.approx(expected)


def test_choices_are_candidates_without_no_answer() -> None:
    example = Choices("c", "Bo ran .", "why ?", ("rain", "a dog", "rain"), (), ("a dog",))
    numbers = np.arange(3)
    windows = [WindowLogits(numbers, numbers + 1, np.array([[1.0], [3.0], [2.0]]))]
    made = record_of(task_named("multiple_choice"), example, windows)
    assert (made["texts"], made["logits"]) == (["a dog", "rain"], [-np.inf, 3.0, 2.0])
    answers = answers_of([json.loads(json.dumps(made))])
    assert answers.decisions.right.tolist() == [True]
    assert answers.decisions.confidence() == pytest.approx([math.e / (1 + math.e)])
    assert np.isfinite(answers.features).all()
    assert merge_variants(made)["logits"] == [-np.inf, 3.0, 2.0]


def test_spans_are_candidates_after_no_answer() -> None:
    example = Example("a", "Who?", "Bo ran", (Answer("Bo", 0),))
    window = WindowLogits(
        np.array([0, 0, 3]), np.array([0, 2, 6]), np.array([[0.5, 0.0], [2.0, 1.0], [0.0, 0.0]])
    )
    made = record_of(task_named("span_extraction"), example, [window])
    assert (made["texts"], made["gold"]) == (["Bo", "Bo ran", "ran"], ["Bo"])
    assert made["logits"] == [0.5, 3.0, 2.0, 0.0]


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a deep prompt for generated questions."""
    write_corpus("qa", tmp_path / "data/world/qa", 60, 7)
    values = params(make_backbone(tmp_path / "backbone", tmp_path / "data/world/qa"))
    values["tasks"] = {"world_qa": values["tasks"]["world_ner"] | {"source": "world/qa"}}
    values["mixtures"] = {"ner_only": values["mixtures"]["ner_only"] | {"corpora": ["world_qa"]}}
    values["pretrain"] = {"ner_only": TRAINING}
    values["arms"]["deep_prompt"] = TRAINING
    nothing: dict[str, Any] = {"arms": [], "tasks": []}
    values |= {"generate": {"corpora": []}, "compare": nothing, "repeat": nothing | {"seeds": []}}
    values["probe"] |= nothing | {"out_of_domain": []}
    write_params(tmp_path, values)
    shutil.copytree(ROOT / "data_recipes", tmp_path / "data_recipes")
    monkeypatch.chdir(tmp_path)
    prepare("world_qa")
    featurize("world_qa")
    finetune("deep_prompt", "world_qa")
    return tmp_path


def test_all_models_answer_the_same_questions_once(project: Path) -> None:
    out = project / "answers.jsonl"
    collector = Collector("deep_prompt", "world_qa", load_params(), Sizes(6, 4, 8))
    collector.collect(out, [], MODELS)
    text = out.read_text()
    collector.collect(out, [], MODELS)
    assert out.read_text() == text
    runs = read_records(out)
    assert len(runs) == 2 * len(MODELS)
    ids = {key[1:]: [one["id"] for one in records] for key, records in runs.items()}
    for model in MODELS:
        for split, size in (("validation", 6), ("test", 4)):
            assert ids[model, "world_qa", split] == ids["plain", "world_qa", split]
            assert len(ids[model, "world_qa", split]) == size
    logits = {
        model: [one["logits"] for one in runs["deep_prompt", model, "world_qa", "test"]]
        for model in MODELS
    }
    assert len({str(values) for values in logits.values()}) == len(MODELS)
    with pytest.raises(UserError, match="world_qa is span_extraction, which has no other; choose"):
        collector.collect(out, [], ["other"])
