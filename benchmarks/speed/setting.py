"""The setting of the speed benchmarks, and rows of real or generated corpora as features."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from pipeline.data.readers import READERS
from pipeline.data.readers.base import matching_files
from pipeline.data.recipe import Recipe, load_recipe
from pipeline.errors import Problems
from pipeline.evaluation.evaluate import EvalSet
from pipeline.features.table import FeatureTable, write_features
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.row import Row
from pipeline.world import write_corpus

SEED = 7
# Kind of corpus -> recipe and folder of the real corpus.
REAL_CORPORA = {"ner": ("conll2003", "ner/conll2003"), "qa": ("squad", "qa/squad")}
MAX_LENGTHS = {"ner": 128, "qa": 384}


@dataclass(frozen=True)
class Setting:
    """The setting of a benchmark.

    - `data`: the folder of the real corpora; None for generated corpora.
    - `scratch`: a folder for temporary files.
    - `project`: a project where all stages have run.
    - `rounds`, `calls`: in each round, every method does the same number of calls.
    - `rows`: training sentences of the part `epoch`.
    - `sample`: rows to draw batches from in the other parts.
    """

    backbone: Path
    data: Path | None
    scratch: Path
    project: Path
    rounds: int = 10
    calls: int = 3
    rows: int = 1000
    num_virtual_tokens: int = 32
    sample: int = 2000


@dataclass(frozen=True)
class Corpus:
    """Some rows of one split of a corpus."""

    name: str
    eval_set: EvalSet
    pad_token_id: int


def load_corpus(
    setting: Setting, kind: str, split: str = "train", rows: int | None = None
) -> Corpus:
    """Load the first rows of CoNLL-2003 ("ner") or SQuAD ("qa").

    A missing corpus is replaced by the generated corpus of the same kind.
    """
    name, folder = _corpus_folder(setting, kind)
    recipe = load_recipe(Path("data_recipes") / f"{name}.yaml")
    task, problems, ids = task_named(recipe.task), Problems(), count()
    classes = task.classes(recipe.labels)
    examples = []
    max_rows = setting.sample if rows is None else rows
    for row in islice(_read_rows(recipe, folder, split, problems), max_rows):
        example = task.example({"id": str(next(ids)), **row}, recipe.labels, problems)
        if example is not None:
            examples.append(example)
    tokenizer = Tokenizer(setting.backbone)
    # peft uses some of the backbone's positions for virtual tokens.
    max_length = min(MAX_LENGTHS[kind], tokenizer.max_length - setting.num_virtual_tokens)
    features = task.featurize(
        examples, 0, tokenizer, classes, max_length, max_length // 4, Counter()
    )
    path = Path(mkdtemp(dir=setting.scratch)) / "features"
    write_features(features, path)
    table = FeatureTable(path)
    eval_set = EvalSet(task, classes, examples, table, np.arange(len(table)))
    return Corpus(name, eval_set, tokenizer.pad_token_id)


def _corpus_folder(setting: Setting, kind: str) -> tuple[str, Path]:
    """Return the name and the folder of a corpus; generate it if the real corpus is missing."""
    name, folder = REAL_CORPORA[kind]
    if setting.data is not None and (setting.data / folder).is_dir():
        return name, setting.data / folder
    generated = setting.scratch / kind
    if not generated.exists():
        write_corpus("ner" if kind == "ner" else "qa", generated, setting.sample, SEED)
    return f"world_{kind}", generated


def _read_rows(recipe: Recipe, folder: Path, split: str, problems: Problems) -> Iterator[Row]:
    reader = READERS[recipe.reader]
    options = reader.for_task(recipe.options, task_named(recipe.task).row_keys)
    for pattern in recipe.files.of(split) or recipe.files.of("test"):
        for path in matching_files(folder, pattern):
            yield from reader.read(path, options, problems)
