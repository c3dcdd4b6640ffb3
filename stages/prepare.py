"""prepare@TASK: read and check one corpus; write its examples, or every problem found and no examples."""

from pathlib import Path

from pipeline.data.prepare import CorpusError
from pipeline.data.prepare import prepare as prepare_examples
from pipeline.data.recipe import load_recipe
from pipeline.files import write_json
from pipeline.params import task_of
from stages.runtime.entry import log, log_read, log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import CORPORA, EXAMPLES, PROBLEMS, WORK, recipe_of
from stages.workers.processes import executor

HUB = "hub"  # what `data` says of a corpus that is read from its recipe's pinned hub revision


def prepare(name: str) -> None:
    """Write data/examples/NAME: {train,validation,test}.parquet and summary.json; data/corpora/NAME.json, for model cards; and
    data/problems/NAME/problems.jsonl, which has every problem found also where there are too many.
    """
    params = load_params()
    data = task_of(params, name).source
    recipe = load_recipe(recipe_of(name))
    folder = None if data == HUB else Path(params.data_root) / data
    if folder is not None:
        log_read(folder)
    output, problems = EXAMPLES / name, PROBLEMS / name / "problems.jsonl"
    try:
        summary, found = prepare_examples(
            recipe, folder, output, problems, WORK / f"prepare-{name}", executor()
        )
    except CorpusError as bad:
        for line in bad.summary:
            log(line)
        log_wrote(problems)
        raise
    for line in found:
        log(line)
    if summary["detected"]:
        log(
            "detected "
            + ", ".join(f"{name}: {value!r}" for name, value in summary["detected"].items())
        )
    log(", ".join(f"{split} {count}" for split, count in summary["rows"].items()) + " examples")
    about = CORPORA / f"{name}.json"
    write_json(
        about,
        {"license": recipe.license, "source": recipe.source, "hub": recipe.hub and recipe.hub.id},
    )
    log_wrote(output, about, problems)


if __name__ == "__main__":
    run(prepare)
