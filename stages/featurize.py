"""featurize@TASK: examples + the backbone's tokenizer -> features."""

from typing import Any

from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.features.featurize import featurize as featurize_split
from pipeline.features.table import INDEX
from pipeline.files import atomic_folder, sha256, write_json
from pipeline.params import task_of
from pipeline.pretrained.location import locate
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.row import SPLITS
from stages.runtime.entry import log, log_read, log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import EXAMPLES, FEATURES, WORK
from stages.workers.processes import executor, forget


def featurize(name: str) -> None:
    """Write data/features/NAME: tables train, validation and test, and summary.json."""
    params = load_params()
    limits = task_of(params, name)
    source = EXAMPLES / name
    described = load_json(source / "summary.json")
    classes, tokenizer = described["classes"], Tokenizer(locate(params.backbone))
    if limits.max_length > tokenizer.max_length:
        raise UserError(
            f"params.yaml: tasks.{name}.max_length is {limits.max_length}, but the backbone has "
            f"{tokenizer.max_length} positions; make it smaller"
        )
    words = (
        tokenizer.single_words([described["words"][label] for label in classes])
        if described["words"]
        else []
    )
    log_read(source)
    output, work, workers = FEATURES / name, WORK / f"featurize-{name}", executor()
    with atomic_folder(output) as folder:
        summary: dict[str, Any] = {
            key: described[key] for key in ("task", "code", "classes", "primary")
        }
        summary |= {
            "label_token_ids": words,
            "pad_token_id": tokenizer.pad_token_id,
            "splits": {},
            "windows": {"max_length": limits.max_length, "stride": limits.stride},
        }
        for split in SPLITS:
            examples = source / f"{split}.parquet"
            digest = sha256(examples)
            rows, counts = featurize_split(
                examples,
                digest,
                folder / split,
                described["task"],
                classes,
                tokenizer,
                limits.max_length,
                limits.stride,
                work / split,
                workers,
            )
            happened = {what: count for what, count in counts.items() if count}
            summary["splits"][split] = {
                "examples": described["rows"][split],
                "features": rows,
                "counts": happened,
                "sha256": sha256(folder / split / INDEX),
                "examples_sha256": digest,
            }
            log(
                f"{split}: {described['rows'][split]} examples, {rows} features"
                + "".join(f"; {what}: {count}" for what, count in happened.items())
            )
        write_json(folder / "summary.json", summary)
    forget(work)
    log_wrote(output)


if __name__ == "__main__":
    run(featurize)
