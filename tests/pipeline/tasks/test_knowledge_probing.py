"""Knowledge probing: windows, candidates, answers; and prediction on a tiny decoder."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deep_prompt.cli.inspect_artifact import MAX_LISTED_CLASSES
from deep_prompt.serve.describe import example_row, labels_of
from pipeline.artifacts.artifact import save_artifact
from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.distributed.cluster import Ranks
from pipeline.errors import Problems, UserError
from pipeline.evaluation import ranking
from pipeline.evaluation.evaluate import EvalSet, window_logits
from pipeline.features.table import FeatureTable, write_features
from pipeline.inference.loading import load
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.candidates import Ranking
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, ranked_window
from pipeline.tasks.knowledge_probing import (
    TASK,
    BestObjects,
    Example,
    KnowledgeProbing,
    ScoredObject,
)
from pipeline.tasks.shared.cloze_templates import template_problem
from tests.support.encoding import ids
from tests.support.small_project import make_decoder

BORN, CAPITAL = "[X] was born in [Y].", "The capital of [X] is [Y]"
CLASSES = (
    f"born={BORN}",
    "born=York",
    "born=New York",
    "born=York Town",
    "born=Rome",
    f"capital={CAPITAL}",
    "capital=Rome",
    "capital=Oslo",
)
ADA = Example("a", "Ada", "born", "New York", BORN)
ITALY = Example("b", "Italy", "capital", "Rome", CAPITAL)
ROW = {"id": "a", "where": "a:1", "subject": "Ada", "relation": "born", "object": "New York"}


def featurize(
    tokenizer: Tokenizer, *examples: Example, length: int = 64, limit: int = 24
) -> tuple[list[Feature], Counter[str]]:
    counts: Counter[str] = Counter()
    task = KnowledgeProbing(limit)
    return list(task.featurize(examples, 0, tokenizer, CLASSES, length, 0, counts)), counts


def test_the_loss_is_on_the_object_and_the_text_after_it(numbering_tokenizer: Tokenizer) -> None:
    tokenizer = numbering_tokenizer
    (born, capital), counts = featurize(tokenizer, ADA, ITALY)
    assert not +counts
    start = [*tokenizer.prefix, *ids(tokenizer, "Ada was born in")]
    statement = [*tokenizer.prefix, *ids(tokenizer, "Ada was born in New York.")]
    assert born.input_ids == statement[:-1]
    assert born.labels == statement[len(start) :]
    assert list(born.positions) == list(range(len(start) - 1, len(statement) - 1))
    statement = [*tokenizer.prefix, *ids(tokenizer, "The capital of Italy is Rome")]
    assert capital.input_ids == statement
    assert capital.labels[-1] == tokenizer.suffix[0], "nothing follows, so the object ends the text"


def test_what_does_not_fit_is_counted(numbering_tokenizer: Tokenizer) -> None:
    long = Example("c", "Ada " * 30, "born", "York " * 8, BORN)
    (feature,), counts = featurize(numbering_tokenizer, long, length=24, limit=8)
    assert counts == {
        "facts cut": 1,
        "objects longer than max_answer_length": 1,
        "objects without tokens": 0,
    }
    assert len(feature.labels) == 8
    start = feature.input_ids[: feature.positions[0] + 1]
    assert len(start) == 24 - 8
    assert start[-3:] == ids(numbering_tokenizer, "Ada was born in")[-3:], "its end is read"


def test_an_encoder_and_a_window_without_room_are_refused(
    tokenizer: Tokenizer, numbering_tokenizer: Tokenizer
) -> None:
    with pytest.raises(UserError, match="the backbone is an encoder or an encoder-decoder"):
        featurize(tokenizer, ADA)
    with pytest.raises(UserError, match="leaves no room for a text of 8 tokens"):
        featurize(numbering_tokenizer, ADA, length=24)


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"subject": " "}, "empty-subject"),
        ({"object": ""}, "empty-object"),
        ({"object": 3}, "wrong-type"),
        ({"object": BORN}, "invalid-object"),
        ({"relation": True}, "wrong-type"),
        ({"relation": "a=b"}, "invalid-relation"),
        ({"template": None}, "missing-template"),
        ({"template": "[X] was born"}, "invalid-template"),
        ({"template": "[Y] bore [X]."}, "invalid-template"),
        ({"paraphrases": "[X]"}, "wrong-type"),
    ],
)
def test_invalid_rows_are_problems(changes: dict[str, object], kind: str) -> None:
    problems = Problems()
    assert TASK.example({**ROW, "template": BORN, **changes}, (), problems) is None
    assert problems.counts == {kind: 1}


def test_templates_that_a_decoder_cannot_be_asked_with() -> None:
    assert template_problem(BORN) is None
    assert template_problem("([X], [Y])") is None
    for template in ("[X] in", "[Y] of [X]", "[Y]", "[X][Y]", "[X] pre[Y]", "[X] [Y] [Y]"):
        assert template_problem(template), template


def test_a_row_becomes_an_example_and_a_record() -> None:
    row = {**ROW, "template": BORN, "paraphrases": ["[X] is from [Y]."], "relation": 19}
    example = TASK.example(row, (), Problems())
    assert example == Example("a", "Ada", "19", "New York", BORN, ("[X] is from [Y].",))
    assert TASK.from_record(TASK.record(example)) == example
    assert list(TASK.labels(example)) == [f"19={BORN}", "19=New York"]
    assert TASK.num_tokens(example) == 6
    assert TASK.check_labels(["a"])
    edited = TASK.apply_edit(example, Edit(str.upper))
    assert (edited.subject, edited.object) == ("ADA", "New York")


def test_a_query_has_the_objects_of_its_relation(numbering_tokenizer: Tokenizer) -> None:
    ask = TASK.asker(CLASSES, numbering_tokenizer)
    born, capital = ask(ADA, [1]), ask(ITALY, [1])
    assert list(born.group.numbers) == [0, 1, 2, 3]
    assert list(capital.group.numbers) == [3, 4]
    assert (born.gold, capital.gold) == (1, 3)
    assert born.candidates is not capital.candidates, "other texts follow the objects"
    assert ask(Example("c", "Eve", "born", "Rome", BORN), [2]).candidates is born.candidates
    ends = numbering_tokenizer.suffix[0]
    assert [node.path[-1] == ends for node in capital.candidates.end_nodes] == [True] * 5
    assert born.gold_token is None
    unknown = ask(Example("d", "Eve", "born", "", ""), [2])
    assert (unknown.gold, unknown.gold_token) == (None, None)


def test_answers_have_objects_ranks_and_probabilities() -> None:
    windows = [ranked_window(Ranking((1, 0), (-1.0, -2.0), -3.0, 1, 2, 0))]
    answer = TASK.decode(ADA, windows, CLASSES)
    assert answer == {
        "objects": ["New York", "York"],
        "rank": 1,
        "rank_all": 2,
        "rank_vocabulary": 0,
    }
    assert TASK.decisions(ADA, answer, CLASSES) == ([0], [True])
    result = TASK.result(ADA, windows, CLASSES, {})
    total = np.exp([-1.0, -2.0, -3.0]).sum()
    assert [item.object for item in result.objects] == ["New York", "York"]
    assert [item.probability for item in result.objects] == pytest.approx(
        [np.exp(-1) / total, np.exp(-2) / total]
    )
    warm = TASK.result(ADA, windows, CLASSES, {"temperature": 4.0})
    assert warm.objects[0].probability < result.objects[0].probability
    assert str(BestObjects((ScoredObject("Rome", 0.514),))) == "Rome (0.51)"
    (claim,) = TASK.claims(ADA, answer)
    assert (claim.gold, claim.predicted, claim.right) == ("New York", "New York", True)
    (sample,) = TASK.samples(ADA, answer)
    assert sample == ("Ada was born in …", "New York", "New York, York (rank 1)")
    metrics = TASK.score([ADA, ITALY], [answer, {**answer, "rank": 101, "rank_all": 101}], CLASSES)
    assert metrics.overall["p_at_1"] == 50
    assert metrics.overall["majority_p_at_1"] == 50, (
        "York and Rome are the first of their relations"
    )
    units = TASK.counts([ADA], [answer], CLASSES)
    assert units.units == ("a",)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, PromptedModel]:
    """The artifact of a random prompt on a tiny decoder, and its model."""
    folder = tmp_path_factory.mktemp("knowledge")
    texts = ["Ada was born in New York.", "The capital of Italy is Rome", "Oslo York Town"]
    params = BackboneParams(f"folder:{folder}/decoder", make_decoder(folder / "decoder", texts))
    backbone = Backbone.load(folder / "decoder", lm_head=True).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    prompt = DeepPrompt(torch.randn(backbone.prompt_shape(4), generator=generator))
    heads = Heads(["language_model"], [len(CLASSES)], backbone.hidden_size, 0, [()])
    assert heads.weight.shape[1] == 1, "candidates have no weights"
    model = PromptedModel(backbone, prompt, heads, train_backbone=False)
    head = TaskHead(TASK.name, "language_model", CLASSES, max_length=48, max_answer_length=12)
    config = ArtifactConfig(
        "deep_prompt",
        params,
        backbone.model.config.model_type,
        backbone.hidden_size,
        {"facts": head},
        prompt.shape,
    )
    save_artifact(folder / "facts", model, config)
    return folder / "facts", model


def test_evaluation_and_prediction_agree(
    artifact: tuple[Path, PromptedModel], tmp_path: Path
) -> None:
    folder, model = artifact
    examples = [ADA, ITALY, Example("c", "Bo", "born", "Rome", BORN)]
    tokenizer = model.backbone.tokenizer
    features = KnowledgeProbing(12).featurize(examples, 0, tokenizer, CLASSES, 48, 0, Counter())
    write_features(features, tmp_path / "table")
    table = FeatureTable(tmp_path / "table")
    split = EvalSet(TASK, CLASSES, examples, table, np.arange(len(table)))
    windows = list(window_logits(model.eval(), split, 0, 0))
    answers = [
        TASK.decode(example, window, CLASSES)
        for example, window in zip(examples, windows, strict=True)
    ]
    sizes = [len(answer["objects"]) for answer in answers]
    assert sizes == [4, 2, 4], "all objects of a small relation are among the best"
    for example, answer in zip(examples, answers, strict=True):
        assert answer["objects"][answer["rank"] - 1] == example.object
        assert answer["rank"] <= answer["rank_all"] <= 5
    predictor = load([folder])
    rows: list[dict[str, Any]] = [
        {"subject": example.subject, "relation": example.relation} for example in examples
    ]
    results = [prediction.result for prediction in predictor.predict(rows)]
    for result, example, window, answer in zip(results, examples, windows, answers, strict=True):
        assert [item.object for item in result.objects] == answer["objects"]
        expected = TASK.result(example, window, CLASSES, {})
        for item, same in zip(result.objects, expected.objects, strict=True):
            assert item.probability == pytest.approx(same.probability, abs=1e-4)
    assert sum(item.probability for item in results[0].objects) == pytest.approx(1)
    asked = predictor({**rows[0], "template": "[X] came from [Y]."}).result
    assert asked != results[0], "another template is another text"


def test_ranks_share_the_queries(
    artifact: tuple[Path, PromptedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of two ranks has the rankings of its batches, and runs as many passes as the other."""
    _, model = artifact
    tokenizer = model.backbone.tokenizer
    ask = TASK.asker(CLASSES, tokenizer)
    texts = ("Ada was born in", "The capital of Italy is", "Bo")
    queries = [
        ask(example, ids(tokenizer, text))
        for example, text in zip((ADA, ITALY, ADA), texts, strict=True)
    ]
    expected = ranking.rankings(model.eval(), queries, 0, 1, Ranks())
    assert isinstance(model.prompt, DeepPrompt)
    monkeypatch.setattr(model.prompt.dropout, "p", 0.5)
    model.train()
    assert ranking.rankings(model, queries, 0, 1, Ranks()) == expected, "without dropout"
    assert model.training
    flags: list[list[int]] = [[], []]
    sums: list[torch.Tensor] = []

    def record(values: torch.Tensor, ranks: Ranks) -> torch.Tensor:
        if values.dtype == torch.float64:
            sums.append(values)
        else:
            flags[ranks.rank].append(int(values))
            busy = flags[0][len(flags[ranks.rank]) - 1 :][:1] if ranks.rank else []
            return values + sum(busy)
        return values

    monkeypatch.setattr(ranking, "all_reduce_sum", record)
    for number in range(2):
        ranking.rankings(model, queries, 0, 1, Ranks(number, 2))
    first, second = sums
    assert not ((first != 0) & (second != 0)).any(), "no query is ranked twice"
    monkeypatch.setattr(ranking, "all_reduce_sum", lambda values, _: first + second)
    monkeypatch.setattr(ranking, "_another_pass", lambda *_: False)
    assert ranking.rankings(model, queries, 0, 1, Ranks(9, 10)) == expected
    assert len(flags[0]) == len(flags[1]), "ZeRO 3 needs all ranks in each pass"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relation": "bron"}, "no candidates for 'bron'; did you mean 'born'?"),
        ({"subject": ""}, "subject is empty"),
        ({"template": "[X] is [Z]"}, r"it needs \[X\] and \[Y\] once each"),
    ],
)
def test_rows_that_cannot_be_asked_are_refused(
    artifact: tuple[Path, PromptedModel], changes: dict[str, str], message: str
) -> None:
    predictor = load([artifact[0]])
    row = {"subject": "Ada", "relation": "born"}
    with pytest.raises(UserError, match=message):
        predictor({**row, **changes})
    skipped: list[UserError] = []
    rows = [row, {**row, **changes}]
    assert len(list(predictor.predict(rows, on_bad="skip", problems=skipped.append))) == 1
    assert len(skipped) == 1


def test_the_server_shows_no_candidates_as_labels() -> None:
    head = TaskHead(TASK.name, "language_model", CLASSES)
    assert labels_of(head) == []
    assert example_row("facts", head) == {
        "task": "facts",
        "subject": "Ada Lovelace",
        "relation": "born",
    }
    assert len(CLASSES) < MAX_LISTED_CLASSES
