"""featurize@TASK: turn examples into features with the backbone's tokenizer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.config import load_json
from pipeline.errors import Problems, UserError, quantity
from pipeline.features.checks import check_table
from pipeline.features.featurize import featurize as featurize_split
from pipeline.features.table import INDEX, FeatureTable
from pipeline.files import atomic_folder, sha256, write_json
from pipeline.params import TaskParams, task_of
from pipeline.pretrained.location import backbone_files, locate
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import check_answer_length, task_named
from pipeline.tasks.base.feature_checks import add_warnings
from pipeline.tasks.base.row import SPLITS
from stages.runtime.code_hash import code_of_stage
from stages.runtime.entry import log, log_read, log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import EXAMPLES, FEATURES, WORK
from stages.workers.processes import executor, remove_shards


def featurize(name: str) -> None:
    """Write data/features/NAME: tables train, validation and test, and summary.json."""
    params = load_params()
    task = task_of(params, name)
    source = EXAMPLES / name
    corpus = load_json(source / "summary.json")
    backbone = locate(params.backbone)
    classes, tokenizer = corpus["classes"], Tokenizer(backbone, params.backbone.decoder)
    check_answer_length(
        f"params.yaml: tasks.{name}.max_answer_length", corpus["task"], task.max_answer_length
    )
    kind = task_named(corpus["task"]).configured(corpus["primary"], task.max_answer_length)
    if task.max_length > tokenizer.max_length:
        raise UserError(
            f"params.yaml: tasks.{name}.max_length is {task.max_length}, but the backbone has "
            f"{tokenizer.max_length} positions; lower it to at most that number"
        )
    label_token_ids = (
        tokenizer.vocabulary_ids([corpus["words"][label] for label in classes])
        if corpus["words"]
        else []
    )
    code = code_of_stage("featurize", [corpus["task"]])
    log_read(source)
    output, work = FEATURES / name, WORK / f"featurize-{name}"
    with atomic_folder(output) as folder:
        summary: dict[str, Any] = {
            key: corpus[key]
            for key in ("task", "code", "classes", "primary", "word_rule", "optional_inputs")
        }
        summary |= {
            "label_token_ids": label_token_ids,
            "pad_token_id": tokenizer.pad_token_id,
            "backbone_files": backbone_files(backbone),
            "splits": {},
            "windows": {"max_length": task.max_length, "stride": task.stride},
            "max_answer_length": kind.max_answer_length,
        }
        problems = Problems()
        for split in SPLITS:
            examples = source / f"{split}.parquet"
            numbers = _write_split(
                examples, folder / split, corpus, task, tokenizer, work / split, code
            )
            summary["splits"][split] = {"examples": corpus["rows"][split], **numbers}
            table = FeatureTable(folder / split)
            report = check_table(examples, table, kind, classes, corpus["primary"], tokenizer)
            add_warnings(f"{name}: {split}", report, kind, corpus["primary"], problems)
            log(_description(split, summary["splits"][split]))
        write_json(folder / "summary.json", summary)
    for line in problems.summary():
        log(line)
    remove_shards(work)
    log_wrote(output)


def _write_split(
    examples: Path,
    output: Path,
    corpus: Mapping[str, Any],
    task: TaskParams,
    tokenizer: Tokenizer,
    work: Path,
    code: str,
) -> dict[str, Any]:
    """Write the feature table of a split. Returns its counts and hashes for summary.json."""
    digest = sha256(examples)
    rows, counts = featurize_split(
        examples,
        digest,
        output,
        corpus["task"],
        corpus["classes"],
        tokenizer,
        task.max_length,
        task.stride,
        work,
        executor(),
        code,
        task.max_answer_length,
    )
    return {
        "features": rows,
        "counts": +counts,
        "sha256": sha256(output / INDEX),
        "examples_sha256": digest,
    }


def _description(split: str, summary: Mapping[str, Any]) -> str:
    """The numbers of a split's examples and features, and of what `max_length` changes."""
    counts = "".join(f"; {event}: {count}" for event, count in summary["counts"].items())
    examples = quantity(summary["examples"], "example")
    return f"{split}: {examples}, {quantity(summary['features'], 'feature')}{counts}"


if __name__ == "__main__":
    run(featurize)
