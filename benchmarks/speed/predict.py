"""Prediction of rows, compared with transformers, each in float32 and in bfloat16.

The reference for tags is transformers' pipeline. transformers 5 has no pipeline for questions; its
model on windows of 32 questions at a time, with the best start and end of each window, takes its
place. The rows are spread over the test set, as in a request with texts of many documents.
"""

from collections.abc import Iterator
from typing import Any

import torch
import transformers

from benchmarks.speed.methods import PRECISIONS, deep_prompt_model
from benchmarks.speed.setting import MAX_LENGTHS, Corpus, Setting, load_corpus
from benchmarks.speed.timing import Method, alternate, ratio, table
from pipeline.artifacts.config import TaskHead
from pipeline.inference.predictor import Predictor
from pipeline.model.prompt import DeepPrompt
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.row import Row

NUM_ROWS = {"ner": 320, "qa": 64}
TASK_TYPES = {"ner": "token_classification", "qa": "span_extraction"}
SPREAD = 10  # one row in ten
BATCH_SIZE = 32
COLUMNS = (
    "corpus",
    "precision",
    "transformers, rows/s",
    "predictor, rows/s",
    "relative (quartiles)",
    "by CPU time",
)


def run(setting: Setting) -> Iterator[str]:
    """Yield a table of rows per second on both corpora."""
    yield f"Rows per second in prediction, with batches of {BATCH_SIZE} in transformers. Goal: 2."
    yield ""
    yield from table(COLUMNS, (cells for kind in NUM_ROWS for cells in _measure(setting, kind)))


def _measure(setting: Setting, kind: str) -> Iterator[tuple[str, ...]]:
    corpus = load_corpus(setting, kind, "test", SPREAD * NUM_ROWS[kind])
    keys = corpus.eval_set.task.query_keys
    rows = [
        {key: getattr(example, key) for key in keys}
        for example in corpus.eval_set.examples[::SPREAD]
    ]
    methods: dict[tuple[str, str], Method] = {}
    for precision, dtype in PRECISIONS.items():
        methods["transformers", precision] = REFERENCES[kind](setting, corpus, rows, dtype)
        methods["predictor", precision] = _predictor(setting, corpus, kind, rows, dtype)
    times = alternate(methods, setting.rounds, 1)
    for precision in PRECISIONS:
        base, own = times["transformers", precision], times["predictor", precision]
        speeds = (setting.rounds * len(rows) / sum(method.wall) for method in (base, own))
        yield (
            corpus.name,
            precision,
            *(f"{speed:.1f}" for speed in speeds),
            ratio(base.wall, own.wall),
            ratio(base.cpu, own.cpu),
        )


def _window(setting: Setting, kind: str) -> tuple[int, int]:
    """The maximum length and the overlap of windows."""
    max_length = min(MAX_LENGTHS[kind], Tokenizer(setting.backbone).max_length)
    return max_length, max_length // 4


def _predictor(
    setting: Setting, corpus: Corpus, kind: str, rows: list[Row], dtype: torch.dtype
) -> Method:
    """Predict rows under a random prompt."""
    model, eval_set = deep_prompt_model(setting, corpus, dtype=dtype), corpus.eval_set
    assert isinstance(model.prompt, DeepPrompt)
    head = TaskHead(TASK_TYPES[kind], eval_set.task.head, eval_set.classes)
    predictor = Predictor(
        model.backbone,
        Tokenizer(setting.backbone),
        {kind: head},
        [model.prompt],
        model.heads,
        [_window(setting, kind)],
    )
    return lambda _: list(predictor.predict(rows))


def _tagger(setting: Setting, corpus: Corpus, rows: list[Row], dtype: torch.dtype) -> Method:
    """The pipeline for token classification, on texts with spaces between the tokens."""
    classes = corpus.eval_set.classes
    model: Any = transformers.AutoModelForTokenClassification.from_pretrained(
        setting.backbone,
        local_files_only=True,
        dtype=dtype,
        num_labels=len(classes),
        id2label=dict(enumerate(classes)),
    )
    pipe: Any = transformers.pipeline(
        "token-classification",
        model=model,
        tokenizer=transformers.AutoTokenizer.from_pretrained(setting.backbone),
        aggregation_strategy="simple",
        device="cpu",
    )
    texts = [" ".join(row["tokens"]) for row in rows]
    return lambda _: pipe(texts, batch_size=BATCH_SIZE)


def _answerer(setting: Setting, corpus: Corpus, rows: list[Row], dtype: torch.dtype) -> Method:
    """The best start and end of each window."""
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(setting.backbone)
    model: Any = transformers.AutoModelForQuestionAnswering.from_pretrained(
        setting.backbone, local_files_only=True, dtype=dtype
    ).eval()
    max_length, stride = _window(setting, "qa")

    @torch.no_grad()
    def answer(_: int) -> None:
        for first in range(0, len(rows), BATCH_SIZE):
            batch = rows[first : first + BATCH_SIZE]
            inputs = tokenizer(
                [row["question"] for row in batch],
                [row["context"] for row in batch],
                truncation="only_second",
                max_length=max_length,
                stride=stride,
                return_overflowing_tokens=True,
                padding=True,
                return_tensors="pt",
            )
            del inputs["overflow_to_sample_mapping"]
            output = model(**inputs)
            torch.stack([output.start_logits, output.end_logits]).argmax(-1).tolist()

    return answer


REFERENCES = {"ner": _tagger, "qa": _answerer}
