"""prepare@TASK: read and check one corpus, and write its examples and its problems."""

from pathlib import Path

from pipeline.data.prepare import CorpusError
from pipeline.data.prepare import prepare as prepare_examples
from pipeline.data.recipe import load_recipe
from pipeline.data.word_rules import describe_words
from pipeline.files import write_json
from pipeline.params import task_of
from stages.runtime.code_hash import code_of_stage
from stages.runtime.entry import log, log_read, log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import CORPORA, EXAMPLES, PROBLEMS, WORK, recipe_of
from stages.workers.processes import executor

HUB = "hub"  # `source` of a corpus that its recipe reads from a pinned hub revision


def prepare(name: str) -> None:
    """Write data/examples/NAME, data/corpora/NAME.json and data/problems/NAME/problems.jsonl.

    The examples are {train,validation,test}.parquet with summary.json. data/corpora/NAME.json is
    for model cards. problems.jsonl lists all problems, even if the stage fails.
    """
    params = load_params()
    source = task_of(params, name).source
    recipe = load_recipe(recipe_of(name))
    folder = None if source == HUB else Path(params.data_root) / source
    if folder is not None:
        log_read(folder)
    output, problems = EXAMPLES / name, PROBLEMS / name / "problems.jsonl"
    try:
        summary, problem_lines = prepare_examples(
            recipe,
            folder,
            output,
            problems,
            WORK / f"prepare-{name}",
            executor(),
            code=code_of_stage("prepare"),
        )
    except CorpusError as error:
        for line in error.summary:
            log(line)
        log_wrote(problems)
        raise
    for line in problem_lines:
        log(line)
    if summary["detected"]:
        options = (f"{option}: {value!r}" for option, value in summary["detected"].items())
        log(f"detected {', '.join(options)}")
    if words := describe_words(summary):
        log(words)
    log(", ".join(f"{split} {count}" for split, count in summary["rows"].items()) + " examples")
    card_data = CORPORA / f"{name}.json"
    write_json(
        card_data,
        {"license": recipe.license, "source": recipe.source, "hub": recipe.hub and recipe.hub.id},
    )
    log_wrote(output, card_data, problems)


if __name__ == "__main__":
    run(prepare)
