"""Put a released task into the zoo:

    python -m zoo.add TASK

Run it in the project that released the task (`presets/zoo.yaml`). It copies models/TASK to zoo/TASK
beside this file, with the 95 % interval of the test score in scores.json, and lists the sha256 of
the files in README.md.
"""

import dataclasses
import shutil
import sys

from pipeline.analysis.bootstrap import interval, resample
from pipeline.artifacts.scores import FILE, ArtifactScores, load_scores
from pipeline.artifacts.zoo import ZOO
from pipeline.files import atomic_folder, sha256, write_json
from pipeline.report.collect import load_counts
from stages.runtime.paths import MODELS, PREDICTIONS


def add(task: str) -> None:
    """Write zoo/TASK."""
    with atomic_folder(ZOO / task) as output:
        for file in MODELS.joinpath(task).iterdir():
            shutil.copyfile(file, output / file.name)
        write_json(output / FILE, dataclasses.asdict(_with_interval(task)))
        hashes = "\n".join(
            f"    {sha256(file)}  {file.name}"
            for file in sorted(output.iterdir())
            if file.name != "README.md"
        )
        with (output / "README.md").open("a", encoding="utf-8") as card:
            card.write(f"\n## Files\n\nsha256:\n\n{hashes}\n")


def _with_interval(task: str) -> ArtifactScores:
    """The scores of a released task, with the interval of test-set sampling."""
    scores = load_scores(MODELS / task)
    counts = load_counts(PREDICTIONS / "multitask" / task)
    assert counts is not None, f"{task} has no counts of test units"
    score = scores.tasks[task]
    (samples,) = resample([counts])
    score = dataclasses.replace(score, interval=interval(samples[score.metric]))
    return dataclasses.replace(scores, tasks={task: score})


if __name__ == "__main__":
    add(sys.argv[1])
