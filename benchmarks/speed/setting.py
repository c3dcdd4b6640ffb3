"""What the parts run on, and the rows of real or generated corpora as features."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from pipeline.data.readers import READERS
from pipeline.data.readers.base import matching_files
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems
from pipeline.evaluation.evaluate import EvalSet
from pipeline.features.table import FeatureTable, write_features
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.row import Row
from pipeline.world import write_corpus

SEED = 7
REAL = {
    "ner": ("conll2003", "ner/conll2003"),
    "qa": ("squad", "qa/squad"),
}  # kind of corpus: its recipe, its folder
LIMITS = {"ner": 128, "qa": 384}  # max_length


@dataclass(frozen=True)
class Setting:
    """`data` holds the real corpora (None: generated ones); `scratch` is for what is written; `project` is a pipeline that has
    run. In each of `rounds` every way does the same `calls`, on batches of the first `sample` rows; `rows` are trained on in the
    part epoch.
    """

    backbone: Path
    data: Path | None
    scratch: Path
    project: Path
    rounds: int = 10
    calls: int = 3
    rows: int = 1000
    virtual_tokens: int = 32
    sample: int = 2000


@dataclass(frozen=True)
class Corpus:
    """Some rows of one split of one corpus; `pad_token_id` is what its token ids are padded with."""

    name: str
    split: EvalSet
    pad_token_id: int


def corpus(setting: Setting, kind: str, split: str = "train", rows: int | None = None) -> Corpus:
    """The first rows of CoNLL-2003 ("ner") or SQuAD ("qa"), or of the generated corpus of that kind where it is not at hand."""
    name, folder = REAL[kind]
    where = None if setting.data is None else setting.data / folder
    if where is None or not where.is_dir():
        name, where = f"world_{kind}", setting.scratch / kind
        if not where.exists():
            write_corpus("ner" if kind == "ner" else "qa", where, setting.sample, SEED)
    recipe = load_recipe(Path("data_recipes") / f"{name}.yaml")
    task, problems, numbers = task_named(recipe.task), Problems(), count()
    named = recipe.files.of(split) or recipe.files.of("test")

    def read() -> Iterator[Row]:
        for path in (path for pattern in named for path in matching_files(where, pattern)):
            yield from READERS[recipe.reader].read(path, recipe.options, problems)

    first = islice(read(), setting.sample if rows is None else rows)
    found = (
        task.example({"id": str(next(numbers)), **row}, recipe.labels, problems) for row in first
    )
    examples = [example for example in found if example is not None]
    tokenizer, classes = Tokenizer(setting.backbone), task.classes(recipe.labels)
    path = Path(mkdtemp(dir=setting.scratch)) / "features"
    most = min(
        LIMITS[kind], tokenizer.max_length - setting.virtual_tokens
    )  # of whose positions peft takes some
    write_features(
        task.featurize(examples, 0, tokenizer, classes, most, most // 4, Counter()), path
    )
    table = FeatureTable(path)
    return Corpus(
        name, EvalSet(task, classes, examples, table, np.arange(len(table))), tokenizer.pad_token_id
    )
