"""Rows of many tasks in shared batches have the same predictions as alone and in the evaluation."""

import dataclasses
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pipeline.arms import ArmName
from pipeline.artifacts.artifact import save_artifact
from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.config import load_json
from pipeline.errors import Problems, UserError
from pipeline.evaluation.evaluate import EvalSet, decode
from pipeline.features.table import FeatureTable, write_features
from pipeline.files import sha256, write_json
from pipeline.inference import predictor as module
from pipeline.inference.loading import load
from pipeline.inference.prediction import Prediction
from pipeline.inference.predictor import Predictor
from pipeline.mixing.batches import Batch
from pipeline.model import prompt as prompt_module
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt, PromptBank, SoftPrompt, TaskFactors
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.features import WindowLogits
from pipeline.world import write_corpus
from tests.support.small_project import make_backbone

torch.set_num_threads(1)
BIO = ("O", "B-X", "I-X", "B-Y", "I-Y")
HEADS = {
    "ner": TaskHead("token_classification", "classes", BIO),
    "srl": TaskHead("semantic_role_labeling", "classes", (*BIO, "B-V", "I-V")),
    "qa": TaskHead("span_extraction", "positions", ("start", "end")),
}
SERVED = HEADS | {"shifted": HEADS["ner"]}
Row = dict[str, Any]
Seen = dict[tuple[str, str], list[WindowLogits]]


class Place:
    """A backbone and artifacts for it, in a folder."""

    def __init__(self, folder: Path) -> None:
        write_corpus("srl", folder / "corpus", 40, 7)
        self.folder = folder
        self.params = BackboneParams(
            f"folder:{folder}/backbone", make_backbone(folder / "backbone", folder / "corpus")
        )
        self.backbone = Backbone.load(folder / "backbone").requires_grad_(False)
        self.tokenizer = Tokenizer(folder / "backbone")
        text = (folder / "corpus/train.conll").read_text(encoding="utf-8").splitlines()
        self.words = [line.split("\t")[3] for line in text if line]

    def key_values(self, count: int, seed: int) -> torch.Tensor:
        return torch.randn(
            self.backbone.prompt_shape(count), generator=torch.Generator().manual_seed(seed)
        )

    def model(
        self, heads: dict[str, TaskHead], prompt: DeepPrompt | SoftPrompt | None, seed: int = 0
    ) -> PromptedModel:
        made = Heads(
            [head.kind for head in heads.values()],
            [len(head.classes) for head in heads.values()],
            self.backbone.hidden_size,
            seed,
            [head.label_token_ids for head in heads.values()],
        )
        with torch.no_grad():  # classes differ clearly in probability, and the bias has an effect
            made.weight.mul_(20)
            made.bias.normal_(generator=torch.Generator().manual_seed(seed))
        return PromptedModel(self.backbone, prompt, made, train_backbone=False)

    def save(
        self,
        name: str,
        arm: ArmName,
        model: PromptedModel,
        heads: dict[str, TaskHead],
        **changes: Any,
    ) -> Path:
        prompt, prompt_fields = model.prompt, {}
        if isinstance(prompt, SoftPrompt):
            prompt_fields = {"prompt_shape": tuple(prompt.vectors.shape)}
        elif prompt is not None:
            prompt_fields = {
                "prompt_shape": prompt.shape,
                "first_layer": prompt.first_layer,
                "position_offset": prompt.position_offset,
            }
        config = ArtifactConfig(
            arm, self.params, "bert", self.backbone.hidden_size, heads, **prompt_fields
        )
        save_artifact(self.folder / name, model, dataclasses.replace(config, **changes))
        return self.folder / name

    def rows(self, task: str, count: int, longest: int = 30, seed: int = 0) -> list[Row]:
        """Rows of one to `longest` words of the corpus. The longest rows need several windows."""
        generator = np.random.default_rng(seed)
        made: list[Row] = []
        for number in range(count):
            words = generator.choice(self.words, int(generator.integers(1, longest + 1))).tolist()
            row = (
                {"tokens": words}
                if task != "qa"
                else {"question": " ".join(words[:5]), "context": " ".join(words)}
            )
            more = {"predicate": len(words) // 2} if task == "srl" else {}
            made.append({"task": task, "id": f"{task}-{number}", **row, **more})
        return made

    def mixed(self, count: int, longest: int = 30) -> list[Row]:
        """Rows of all three tasks in turn."""
        return [
            row
            for rows in zip(*(self.rows(task, count, longest) for task in HEADS), strict=True)
            for row in rows
        ]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def models(place: Place) -> dict[str, PromptedModel]:
    """Models whose prompts differ in length and layers; one has none, one shifts the text."""
    prompts = {
        "ner": DeepPrompt(place.key_values(4, 1)),
        "srl": DeepPrompt(place.key_values(9, 2)[1:], first_layer=1),
        "qa": None,
        "shifted": DeepPrompt(place.key_values(3, 3), position_offset=3),
    }
    return {
        name: place.model({name: SERVED[name]}, prompt, seed)
        for seed, (name, prompt) in enumerate(prompts.items())
    }


@pytest.fixture(scope="module")
def artifacts(place: Place, models: dict[str, PromptedModel]) -> list[Path]:
    return [
        place.save(
            name, "deep_prompt" if model.prompt else "head_only", model, {name: SERVED[name]}
        )
        for name, model in models.items()
    ]


@pytest.fixture
def predictor(artifacts: list[Path]) -> Predictor:
    return load(artifacts, max_length=40)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    """The logits behind predictions: (kind of task, id) -> the logits of all windows."""
    found: Seen = {}

    def watch(name: str) -> None:
        kind = type(task_named(name))
        inner = kind.result

        def result(self: Any, example: Any, windows: Any, *args: Any) -> Any:
            found[name, example.id] = list(windows)
            return inner(self, example, windows, *args)

        monkeypatch.setattr(kind, "result", result)

    for head in HEADS.values():
        watch(head.type)
    return found


def assert_same(found: list[WindowLogits], expected: list[WindowLogits]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert list(one.begins) == list(other.begins)
        assert list(one.ends) == list(other.ends)
        assert one.logits.shape == other.logits.shape
        np.testing.assert_allclose(one.logits, other.logits, atol=1e-5)


def rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    return [rounded(inner) for inner in value] if isinstance(value, list | tuple) else value


def all_rows(place: Place) -> list[Row]:
    shifted = [
        row | {"task": "shifted", "id": f"shifted-{number}"}
        for number, row in enumerate(place.rows("ner", 8, seed=5))
    ]
    return [*place.mixed(12), *shifted]


def test_a_mixed_batch_equals_each_row_alone(
    place: Place, predictor: Predictor, seen: Seen
) -> None:
    rows = all_rows(place)
    together = list(predictor.predict(rows, batch_tokens=100_000))
    mixed = dict(seen)
    seen.clear()
    assert [(one.id, one.task) for one in together] == [(row["id"], row["task"]) for row in rows]
    assert len({json.dumps(rounded(one.asdict()["result"])) for one in together}) > 20, (
        "results differ between rows"
    )
    assert any(len(windows) > 1 for windows in mixed.values())
    for row, one in zip(rows, together, strict=True):
        (alone,) = predictor.predict([row], batch_tokens=1)
        assert rounded(one.asdict()) == rounded(alone.asdict())
    assert mixed.keys() == seen.keys()
    for key, windows in mixed.items():
        assert_same(windows, seen[key])


@pytest.mark.parametrize("batch_tokens", [1, 300, 100_000])
def test_logits_equal_those_of_the_evaluation(
    batch_tokens: int,
    place: Place,
    models: dict[str, PromptedModel],
    predictor: Predictor,
    seen: Seen,
    tmp_path: Path,
) -> None:
    rows = all_rows(place)
    list(predictor.predict(rows, batch_tokens))
    found = dict(seen)
    for name, model in models.items():
        head = SERVED[name]
        expected = evaluation_logits(
            model,
            head,
            [row for row in rows if row["task"] == name],
            place.tokenizer,
            tmp_path / name,
        )
        assert len(expected) > 7
        for number, windows in expected.items():
            assert_same(found[head.type, number], windows)


class Echo:
    """A task whose prediction is its input."""

    def decode(
        self, example: Any, windows: list[WindowLogits], classes: tuple[str, ...]
    ) -> tuple[str, list[WindowLogits]]:
        return example.id, list(windows)


def evaluation_logits(
    model: PromptedModel,
    head: TaskHead,
    rows: list[Row],
    tokenizer: Tokenizer,
    folder: Path,
    max_length: int = 40,
) -> dict[str, list[WindowLogits]]:
    """The logits of each example, computed as in `stages.evaluate`.

    The features are on disk, batches have a single task, and the model is that of training.
    """
    task, problems = task_named(head.type), Problems()
    examples = [task.example_for_prediction({**row, "where": row["id"]}, problems) for row in rows]
    problems.raise_if_any()
    folder.mkdir()
    features = task.featurize(
        examples, 0, tokenizer, head.classes, max_length, max_length // 4, Counter()
    )
    write_features(features, folder / "a.arrow")
    table = FeatureTable(folder / "a.arrow")
    echo: Any = Echo()
    split = EvalSet(echo, head.classes, examples, table, np.arange(len(table)))
    return dict(decode(model, split, 0, tokenizer.pad_token_id))


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[int, int]]]:
    """The (task, length) of each window in each forward pass."""
    found: list[list[tuple[int, int]]] = []
    inner = PromptedModel.forward

    def forward(self: PromptedModel, batch: Batch) -> torch.Tensor:
        assert isinstance(batch.tasks, torch.Tensor)
        lengths = batch.attention_mask.sum(1).tolist()
        found.append(list(zip(batch.tasks.tolist(), lengths, strict=True)))
        return inner(self, batch)

    monkeypatch.setattr(PromptedModel, "forward", forward)
    return found


def test_tasks_share_forward_passes(
    place: Place,
    predictor: Predictor,
    passes: list[list[tuple[int, int]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = place.mixed(10)
    list(predictor.predict(rows, batch_tokens=100_000))
    assert sum(len({task for task, _ in batch}) == 3 for batch in passes) > 2
    passes.clear()
    monkeypatch.setattr(module, "MAX_PADDING", 100_000)  # like on a GPU
    list(predictor.predict(rows, batch_tokens=100_000))
    (batch,) = passes
    assert len(batch) > 30, "all windows share a single pass"


def test_batches_stay_within_the_token_budget_and_the_padding_limit(
    place: Place, predictor: Predictor, passes: list[list[tuple[int, int]]]
) -> None:
    list(predictor.predict(place.mixed(12), batch_tokens=200))
    lengths = [length for batch in passes for _, length in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) > 10
    for batch in passes:
        longest = batch[0][1]
        assert longest * len(batch) <= 200
        assert sum(longest - length for _, length in batch) <= module.MAX_PADDING
    # No batch has room for the next window.
    for batch, following in itertools.pairwise(passes):
        padding = sum(batch[0][1] - length for _, length in [*batch, following[0]])
        assert padding > module.MAX_PADDING or batch[0][1] * (len(batch) + 1) > 200


def test_the_prompts_are_stacked_once(
    artifacts: list[Path], place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    inner = prompt_module.stack_prompts
    monkeypatch.setattr(
        prompt_module, "stack_prompts", lambda *args: calls.append(1) or inner(*args)
    )
    predictor = load(artifacts)
    list(predictor.predict(place.mixed(4), batch_tokens=1))
    assert calls == [1]


@pytest.mark.parametrize("chunk", [1, 2, 7, 512])
def test_results_are_in_the_order_of_the_rows(
    chunk: int, place: Place, predictor: Predictor
) -> None:
    rows = place.mixed(5, longest=8)
    expected = [rounded(one.asdict()) for one in predictor.predict(rows)]
    assert [rounded(one.asdict()) for one in predictor.predict(iter(rows), chunk=chunk)] == expected


def test_no_rows_give_no_predictions(predictor: Predictor) -> None:
    assert list(predictor.predict([])) == []


def test_ids_are_those_of_the_rows_or_row_numbers(predictor: Predictor) -> None:
    row = {"task": "ner", "tokens": ["a"]}
    found = predictor.predict(
        [row | {"id": "x"}, row, row | {"id": 17}, row | {"id": None}], chunk=2
    )
    assert [one.id for one in found] == ["x", 1, 17, 3]


def test_a_prediction_has_plain_values(predictor: Predictor) -> None:
    (one,) = predictor.predict([{"task": "ner", "id": "x", "tokens": ["a", "b"]}])
    assert isinstance(one, Prediction)
    assert dataclasses.is_dataclass(one.result)
    assert json.loads(json.dumps(one.asdict())) == {
        "id": "x",
        "task": "ner",
        "result": json.loads(json.dumps(dataclasses.asdict(one.result))),
    }


def test_endless_rows_are_read_chunk_by_chunk(predictor: Predictor) -> None:
    read = itertools.count()

    def endless() -> Iterator[Row]:
        for number in read:
            yield {"task": "ner", "tokens": [f"a{number}"]}

    found = [one.id for one in itertools.islice(predictor.predict(endless(), chunk=4), 10)]
    assert found == list(range(10))
    assert next(read) == 12


def test_a_row_needs_no_task_if_there_is_only_one(artifacts: list[Path]) -> None:
    (one,) = load(artifacts[:1]).predict([{"tokens": ["a"]}])
    assert one.task == "ner"


BAD: list[tuple[Any, list[str]]] = [
    ({"tokens": ["a"]}, ["rows[1]: key 'task' is missing; give one of ner, srl, qa, shifted"]),
    ({"task": "nre", "tokens": ["a"]}, ["rows[1]: task: no task 'nre'; did you mean 'ner'?"]),
    ({"task": ["ner"], "tokens": ["a"]}, ["rows[1]: task: no task"]),
    ({"task": "qa", "where": "f.jsonl:7"}, ["f.jsonl:7: ", "question", "context", "missing"]),
    ({"task": "qa", "question": "who"}, ["rows[1]: ", "'context'", "missing"]),
    ({"task": "ner", "tokens": "a b"}, ["rows[1]: ", "tokens", "'a b'"]),
    ({"task": "ner", "tokens": []}, ["rows[1]: ", "token"]),
    ({"task": "ner", "tokens": ["a", 3]}, ["rows[1]: ", "token"]),
    ({"task": "srl", "tokens": ["a"], "predicate": 1}, ["rows[1]: ", "predicate"]),
    ({"task": "srl", "tokens": ["a"], "predicate": True}, ["rows[1]: ", "predicate"]),
    ({"task": "qa", "question": " ", "context": "a"}, ["rows[1]: ", "question"]),
    ({"task": "qa", "question": "a", "context": None}, ["rows[1]: ", "context"]),
    (
        {"task": "ner", "tokens": ["a"], "id": [1]},
        ["rows[1]: id is '[1]'; give text or an integer"],
    ),
    ({"task": "ner", "tokens": ["a\ud800"]}, ["rows[1]: ", "half a surrogate pair"]),
    ({"task": "ner", "tokens": ["a"], "id": "\udfff"}, ["rows[1]: ", "half a surrogate pair"]),
    (["ner"], ["rows[1]: found a list", "expected a mapping"]),
    (UserError("f.jsonl:3: not valid JSON"), ["f.jsonl:3: not valid JSON"]),
]
GOOD = {"task": "ner", "tokens": ["a"]}


@pytest.mark.parametrize(("row", "parts"), BAD)
def test_a_bad_row_is_reported_or_skipped(row: Any, parts: list[str], predictor: Predictor) -> None:
    with pytest.raises(UserError) as caught:
        list(predictor.predict([GOOD, row]))
    for part in parts:
        assert part in str(caught.value)
    reported: list[UserError] = []
    assert [
        one.id
        for one in predictor.predict([GOOD, row, GOOD], on_bad="skip", problems=reported.append)
    ] == [0, 2]
    assert [error.problems for error in reported] == [caught.value.problems]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": "Ada met Bo"}, "rows is 'Ada met Bo'; give a list (or another iterable)"),
        ({"rows": GOOD}, "rows is {'task': 'ner', 'tokens': ['a']}; give a list"),
        ({"rows": None}, "rows is None; give a list"),
        ({"chunk": 0}, "chunk is 0; give a whole number above 0"),
        ({"chunk": 2.0}, "chunk is 2.0; give a whole number above 0"),
        ({"batch_tokens": -1}, "batch_tokens is -1; give a whole number above 0"),
        ({"batch_tokens": True}, "batch_tokens is True; give a whole number above 0"),
        ({"on_bad": "skipp"}, "on_bad is 'skipp'; did you mean 'skip'?"),
        ({"on_bad": None}, "on_bad is None; use one of raise, skip"),
        ({"problems": []}, "problems is []; give a function that takes a UserError"),
    ],
)
def test_wrong_arguments_of_predict_are_refused_at_once(
    arguments: dict[str, Any], message: str, predictor: Predictor
) -> None:
    with pytest.raises(UserError) as caught:
        predictor.predict(**{"rows": [GOOD], **arguments})
    assert caught.value.problems[0].startswith(message)
    with pytest.raises(UserError) as caught:
        predictor.predict(rows=None, chunk=0, on_bad="x")  # type: ignore[arg-type]
    assert len(caught.value.problems) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"artifacts": "models"},
            "artifacts is 'models'; give a list of folders, or a mapping",
        ),
        ({"artifacts": None}, "artifacts is None; give a list of folders"),
        ({"artifacts": [3]}, "artifacts[0] is 3; give the path of a folder"),
        ({"artifacts": {"ner": None}}, "artifacts['ner'] is None; give the path"),
        ({"backbone": "folder:x"}, "backbone is 'folder:x'; give pipeline.params.Backbone"),
        ({"device": "gpu"}, "device is 'gpu': Expected one of cpu, cuda"),
        ({"device": "meta"}, "device is 'meta': "),
        ({"device": 1.5}, "device is 1.5: "),
        ({"dtype": "bfloat16"}, "dtype is 'bfloat16'; give one of torch.float32, "),
        ({"dtype": torch.int8}, "dtype is torch.int8; give one of torch.float32, "),
        ({"max_length": "40"}, "max_length is '40'; give a whole number"),
        ({"stride": 4.0}, "stride is 4.0; give a whole number"),
    ],
)
def test_wrong_arguments_of_load_are_refused(
    arguments: dict[str, Any], message: str, artifacts: list[Path]
) -> None:
    with pytest.raises(UserError) as caught:
        load(**{"artifacts": artifacts, **arguments})
    assert [problem.startswith(message) for problem in caught.value.problems] == [True]
    with pytest.raises(UserError) as caught:
        load([], dtype=32, device="gpu", stride="")  # type: ignore[arg-type]
    assert len(caught.value.problems) == 3


def test_values_of_numpy_are_accepted(predictor: Predictor, artifacts: list[Path]) -> None:
    rows = [
        {"task": "ner", "tokens": ["Ada", "in"], "id": 4},
        {"task": "srl", "tokens": ["Ada", "in"], "predicate": 1},
        {"task": "qa", "question": "who", "context": "Ada"},
    ]
    arrays = [
        {"task": np.str_("ner"), "tokens": np.array(["Ada", "in"]), "id": np.int64(4)},
        {"task": "srl", "tokens": np.array(["Ada", "in"], object), "predicate": np.int32(1)},
        {"task": "qa", "question": np.str_("who"), "context": "Ada"},
    ]
    expected = list(predictor.predict(rows))
    found = list(predictor.predict(np.array(arrays), chunk=np.int64(2), batch_tokens=np.int16(99)))
    assert found == expected
    assert [type(one.id) for one in found] == [int, int, int]
    json.dumps([one.asdict() for one in found])
    sized = load(artifacts, max_length=np.int64(20), stride=np.int64(3), device=torch.device("cpu"))
    assert set(sized.windows.values()) == {(20, 3)}


def test_all_bad_rows_of_a_chunk_are_reported_before_its_predictions(predictor: Predictor) -> None:
    rows = [GOOD, GOOD, GOOD, {"task": "nre"}, GOOD, {"task": "qa"}, {"task": "later"}]
    answered: list[Any] = []
    with pytest.raises(UserError) as caught:
        answered.extend(one.id for one in predictor.predict(rows, chunk=3))
    assert answered == [0, 1, 2]
    assert [problem.split(":")[0] for problem in caught.value.problems] == ["rows[3]", "rows[5]"]


def test_only_bad_rows_give_no_predictions(predictor: Predictor) -> None:
    assert list(predictor.predict([{}, {}, {}], on_bad="skip", chunk=2)) == []


def test_truncated_questions_are_counted(predictor: Predictor) -> None:
    list(predictor.predict([{"task": "qa", "question": "a " * 60, "context": "b"}]))
    assert predictor.counts["questions cut"] == 1


def test_threads_share_a_predictor(predictor: Predictor, place: Place) -> None:
    """Each request has the predictions that it has alone, and every effect is counted."""
    requests = [place.rows(task, 20, seed=seed) for seed in range(2) for task in HEADS]
    long = {"task": "qa", "question": "a " * 60, "context": "b"}
    expected = [list(predictor.predict([*rows, long])) for rows in requests]
    counts = {name: 3 * count for name, count in predictor.counts.items()}
    predictor.counts.clear()
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda rows: list(predictor.predict([*rows, long])), requests * 3)
        assert list(answers) == expected * 3
    assert counts["questions cut"] >= 3 * len(requests)
    assert predictor.counts == counts


def test_a_shared_prompt_is_stored_once(place: Place) -> None:
    heads = {"ner": HEADS["ner"], "qa": HEADS["qa"]}
    model = place.model(heads, DeepPrompt(place.key_values(5, 7)))
    predictor = load([place.save("shared", "deep_prompt", model, heads)])
    assert isinstance(predictor.model.prompt, PromptBank)
    assert predictor.model.prompt.key_values is not None
    assert len(predictor.model.prompt.key_values) == 1
    assert [one.task for one in predictor.predict(place.rows("ner", 2) + place.rows("qa", 2))] == [
        "ner",
        "ner",
        "qa",
        "qa",
    ]


def test_each_task_with_factors_has_its_prompt(place: Place, seen: Seen, tmp_path: Path) -> None:
    heads = {"ner": HEADS["ner"], "qa": HEADS["qa"]}
    values = place.key_values(5, 7)
    layers, two, number, count, size = values.shape
    factors = TaskFactors(2, count, 2, layers * two * number * size, 3)
    torch.nn.init.normal_(factors.v, generator=torch.Generator().manual_seed(4))
    prompt = DeepPrompt(values, factors=factors)
    model = place.model(heads, prompt)
    predictor = load(
        [place.save("factors", "deep_prompt", model, heads, factor_rank=2)], max_length=40
    )
    rows = place.rows("ner", 4) + place.rows("qa", 4)
    list(predictor.predict(rows))
    found = dict(seen)
    for index, (name, head) in enumerate(heads.items()):
        single_task = place.model({name: head}, DeepPrompt(prompt.materialize(index).detach()))
        with torch.no_grad():
            single_task.heads.weight[0] = model.heads.weight[index, : len(head.classes)]
            single_task.heads.bias[0] = model.heads.bias[index, : len(head.classes)]
        expected = evaluation_logits(
            single_task,
            head,
            [row for row in rows if row["task"] == name],
            place.tokenizer,
            tmp_path / name,
        )
        for key, windows in expected.items():
            assert_same(found[head.type, key], windows)


def test_a_soft_prompt_has_the_logits_of_the_evaluation(
    place: Place, seen: Seen, tmp_path: Path
) -> None:
    heads = {"ner": HEADS["ner"]}
    model = place.model(
        heads, SoftPrompt(torch.randn(5, 32, generator=torch.Generator().manual_seed(1)))
    )
    rows = place.rows("ner", 5)
    list(load([place.save("soft", "soft_prompt", model, heads)], max_length=40).predict(rows))
    found = dict(seen)
    for key, windows in evaluation_logits(
        model, HEADS["ner"], rows, place.tokenizer, tmp_path / "e"
    ).items():
        assert_same(found["token_classification", key], windows)


def test_a_fine_tuned_backbone_has_the_logits_of_the_evaluation(
    place: Place, seen: Seen, tmp_path: Path
) -> None:
    heads = {"ner": HEADS["ner"]}
    model = place.model(heads, None)
    model.backbone = Backbone.load(place.folder / "backbone")
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.add_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)) * 0.05
            )
    rows = place.rows("ner", 5)
    list(load([place.save("tuned", "fine_tune", model, heads)], max_length=40).predict(rows))
    found = dict(seen)
    for key, windows in evaluation_logits(
        model, HEADS["ner"], rows, place.tokenizer, tmp_path / "e"
    ).items():
        assert_same(found["token_classification", key], windows)


class LMHead(torch.nn.Module):
    """An LM head: one logit per word for every hidden state."""

    def __init__(self, words: int, hidden_size: int) -> None:
        super().__init__()
        self.weight = torch.randn(words, hidden_size, generator=torch.Generator().manual_seed(1))

    def forward(self, inputs_embeds: torch.Tensor) -> Any:
        return SimpleNamespace(logits=inputs_embeds @ self.weight.T)


def test_a_verbalizer_works_with_other_heads(
    place: Place, models: dict[str, PromptedModel], seen: Seen, tmp_path: Path
) -> None:
    """The classes of a verbalizer are words of the backbone's LM head."""
    verbal = TaskHead("token_classification", "verbalizer", BIO[:3], label_token_ids=(7, 50, 9))
    backbone = Backbone(place.backbone.model, LMHead(60, 32))
    tasks = {"verbal": verbal, "ner": HEADS["ner"]}
    prompts = [DeepPrompt(place.key_values(6, 8)), models["ner"].prompt]
    heads = Heads(["verbalizer", "classes"], [3, 5], 32, 0, [verbal.label_token_ids, ()])
    with torch.no_grad():
        heads.weight[1], heads.bias[1] = models["ner"].heads.weight[0], models["ner"].heads.bias[0]
    rows = [
        row
        for pair in zip(place.rows("ner", 6), place.rows("ner", 6, seed=3), strict=True)
        for row in pair
    ]
    for row in rows[1::2]:
        row.update(task="verbal", id=row["id"] + "v")
    predictor = Predictor(backbone, place.tokenizer, tasks, prompts, heads, [(40, 10)] * 2)
    assert [one.task for one in predictor.predict(rows)] == ["ner", "verbal"] * 6
    found = dict(seen)
    verbal_heads = Heads(["verbalizer"], [3], 32, 0, [verbal.label_token_ids])
    alone = {
        "verbal": PromptedModel(backbone, prompts[0], verbal_heads, train_backbone=False),
        "ner": models["ner"],
    }
    for name, model in alone.items():
        expected = evaluation_logits(
            model,
            tasks[name],
            [row for row in rows if row["task"] == name],
            place.tokenizer,
            tmp_path / name,
        )
        for key, windows in expected.items():
            assert_same(found["token_classification", key], windows)


def test_a_verbalizer_loads_the_lm_head(
    place: Place, artifacts: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    inner = Backbone.load
    monkeypatch.setattr(
        Backbone, "load", lambda folder, lm_head, *_, **__: asked.append(lm_head) or inner(folder)
    )
    heads = {
        "verbal": TaskHead(
            "token_classification", "verbalizer", BIO[:3], label_token_ids=(7, 50, 9)
        )
    }
    load([place.save("verbal", "head_only", place.model(heads, None), heads), artifacts[0]])
    load(artifacts)
    assert asked == [True, False]


def test_bfloat16_gives_nearly_the_same_logits(
    artifacts: list[Path], place: Place, seen: Seen
) -> None:
    rows = place.mixed(4, longest=8)
    list(load(artifacts).predict(rows))
    exact = all_logits(seen)
    list(load(artifacts, dtype=torch.bfloat16).predict(rows))
    rough = all_logits(seen)
    assert not np.array_equal(rough, exact)
    assert float(np.linalg.norm(rough - exact) / np.linalg.norm(exact)) < 0.1
    assert rough.dtype == np.float32


def test_prediction_is_in_the_precision_of_training(
    place: Place, seen: Seen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heads, rows = {"ner": HEADS["ner"]}, place.rows("ner", 5)
    model = place.model(heads, DeepPrompt(place.key_values(6, 3)))
    in_bfloat16 = place.save("in_bfloat16", "deep_prompt", model, heads, precision="bfloat16")
    in_float32 = place.save("in_float32", "deep_prompt", model, heads)
    model.backbone = Backbone.load(place.folder / "backbone", precision="bfloat16")
    expected = evaluation_logits(model, HEADS["ner"], rows, place.tokenizer, tmp_path / "e")
    flags = {"avx512_bf16": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags)
    list(load([in_bfloat16], max_length=40).predict(rows))
    found = dict(seen)
    for key, windows in expected.items():
        assert_same(found["token_classification", key], windows)
    both = load({"a": in_bfloat16, "b": in_float32})
    assert both.model.backbone.dtype == torch.float32, "the artifacts differ"
    assert [line for line in both.warnings if "trained in" in line] == [
        f"{in_bfloat16}: trained in bfloat16, but computed in float32, the precision of the "
        "backbone that the artifacts share; load them alone, or give dtype"
    ]
    assert not any("trained in" in line for line in load([in_bfloat16]).warnings)
    flags["avx512_bf16"] = False
    both = load({"a": in_bfloat16, "b": in_float32})
    assert not any("trained in" in line for line in both.warnings), "alone, it is float32 too"
    assert load([in_bfloat16]).model.backbone.dtype == torch.float32, "the CPU would be slow"
    assert load([in_bfloat16], dtype=torch.bfloat16).model.backbone.dtype == torch.bfloat16


def all_logits(seen: Seen) -> NDArray[Any]:
    return np.concatenate(
        [window.logits.ravel() for _, windows in sorted(seen.items()) for window in windows]
    )


def test_tasks_are_named_by_the_keys_of_a_mapping(artifacts: list[Path], place: Place) -> None:
    predictor = load({"people": artifacts[0], "places": str(artifacts[3])})
    assert list(predictor.tasks) == ["people", "places"]
    (one,) = predictor.predict([{"task": "places", "tokens": ["a"]}])
    assert one.task == "places"
    heads = {"ner": HEADS["ner"], "qa": HEADS["qa"]}
    several = place.save("several", "head_only", place.model(heads, None), heads)
    assert list(load({"x": several, "y": artifacts[1]}).tasks) == ["ner", "qa", "y"]


def test_windows_use_all_positions_left_by_the_largest_offset(
    artifacts: list[Path],
) -> None:
    assert load(artifacts[:3]).windows["ner"] == (64, 16)
    predictor = load(artifacts)
    assert set(predictor.windows.values()) == {(61, 15)}
    (one,) = predictor.predict([{"task": "shifted", "tokens": ["a"] * 200}])
    assert one.id == 0
    assert set(load(artifacts, max_length=20, stride=3).windows.values()) == {(20, 3)}


def test_windows_equal_those_of_training(place: Place, artifacts: list[Path]) -> None:
    """Each task keeps the window size of its training.

    A size that does not fit with a position offset, or a requested size, replaces it.
    """
    heads = {"short": dataclasses.replace(HEADS["ner"], max_length=30, stride=3)}
    long = {"long": dataclasses.replace(HEADS["ner"], max_length=64, stride=5)}
    folders = [
        place.save(name, "head_only", place.model(head, None), head)
        for name, head in (("s", heads), ("l", long))
    ]
    assert load(folders).windows == {"short": (30, 3), "long": (64, 5)}
    assert load([*folders, artifacts[3]]).windows == {
        "short": (30, 3),
        "long": (61, 15),
        "shifted": (61, 15),
    }
    assert set(load(folders, max_length=24).windows.values()) == {(24, 6)}
    predictor = load(folders)
    list(
        predictor.predict(
            [{"task": "short", "tokens": ["a"] * 40}, {"task": "long", "tokens": ["a"] * 40}]
        )
    )
    assert sum(predictor.counts.values()) == 1


def test_answers_are_as_long_as_the_artifact_allows(place: Place) -> None:
    """An artifact without a maximum length uses 30 sub-words."""
    lengths = {}
    for maximum in (None, 2):
        heads = {"qa": dataclasses.replace(HEADS["qa"], max_answer_length=maximum)}
        folder = place.save(f"answers-{maximum}", "head_only", place.model(heads, None), heads)
        if maximum is None:  # as an artifact of an earlier version
            config = load_json(folder / "config.json")
            del config["heads"]["qa"]["max_answer_length"]
            write_json(folder / "config.json", config)
        spans = [
            span
            for prediction in load([folder], max_length=64).predict(place.rows("qa", 20))
            for span in prediction.result.spans
        ]
        encoded = place.tokenizer.encode_texts([span.text for span in spans])
        lengths[maximum] = max(len(ids) for ids, _ in encoded)
    assert lengths[2] == 2 < lengths[None] <= 30


def test_a_moved_backbone_is_accepted(artifacts: list[Path], place: Place, tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to(place.folder / "backbone")
    moved = BackboneParams(f"folder:{tmp_path}/moved", place.params.sha256)
    assert len(load(artifacts, backbone=moved).tasks) == 4


@pytest.fixture(scope="module")
def refused_artifacts(
    place: Place, artifacts: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """Artifacts that cannot be loaded together, or not at all."""
    heads = {"other": HEADS["ner"]}
    two = {"ner": HEADS["ner"], **heads}
    plain = place.model(heads, None)
    folder = tmp_path_factory.mktemp("refused_artifacts")
    make_backbone(folder, place.folder / "corpus", seed=5)
    return {
        "ner": artifacts[0],
        "srl": artifacts[1],
        "shifted": artifacts[3],
        "absent": folder / "absent",
        "soft": place.save(
            "soft_other", "soft_prompt", place.model(heads, SoftPrompt(torch.zeros(2, 32))), heads
        ),
        "tuned": place.save("tuned_other", "fine_tune", plain, heads),
        "bare": place.save(
            "bare", "deep_prompt", place.model(heads, DeepPrompt(place.key_values(2, 1))), {}
        ),
        "elsewhere": place.save(
            "elsewhere", "head_only", plain, heads, backbone=BackboneParams("folder:x", "b" * 64)
        ),
        "another": BackboneParams(f"folder:{folder}", sha256(folder / "model.safetensors")),
        "both": place.save(
            "both", "deep_prompt", place.model(two, DeepPrompt(place.key_values(2, 1))), two
        ),
    }


@pytest.mark.parametrize(
    ("names", "more", "parts"),
    [
        ([], {}, ["artifacts: the list is empty"]),
        (["ner", "srl", "ner"], {}, ["{ner}: head 'ner' is also in {ner}", "rename one"]),
        (
            ["ner", "soft"],
            {},
            ["{soft}: arm is 'soft_prompt': its prompt is part of the input", "load it alone"],
        ),
        (
            ["tuned", "srl"],
            {},
            ["{tuned}: arm is 'fine_tune': its backbone differs from the others", "load it alone"],
        ),
        (["bare"], {}, ["{bare}/config.json: heads is empty", "tune it"]),
        (
            ["both", "ner", "elsewhere"],
            {},
            ["{both}: other artifacts replace all its heads (ner, other); leave it out"],
        ),
        (
            ["ner", "elsewhere"],
            {},
            ["{elsewhere}: made for backbone folder:x (sha256 bbb", "but {ner} for folder:"],
        ),
        (
            ["ner", "soft", "elsewhere"],
            {},
            [
                "load it alone",
                "{elsewhere}: made for backbone",
                "head 'other' is also in {soft}",
            ],
        ),
        (["ner"], {"backbone": "another"}, ["{ner}: it was made for backbone folder:"]),
        (["absent"], {}, ["{absent}/config.json: no such file"]),
        (
            ["ner", "shifted"],
            {"max_length": 62},
            ["max_length is 62", "positions for 61 tokens", "8 to 61"],
        ),
        (["ner"], {"max_length": 7}, ["max_length is 7", "8 to 64"]),
        (["ner"], {"max_length": 20, "stride": 10}, ["stride 10", "below half"]),
    ],
)
def test_incompatible_artifacts_are_refused(
    names: list[str], more: Row, parts: list[str], refused_artifacts: dict[str, Any]
) -> None:
    with pytest.raises(UserError) as caught:
        load(
            [refused_artifacts[name] for name in names],
            **{key: refused_artifacts.get(value, value) for key, value in more.items()},
        )
    for part in parts:
        assert part.format(**refused_artifacts) in str(caught.value)
