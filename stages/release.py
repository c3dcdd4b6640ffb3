"""release@TASK: one folder to share a tuned task: prompt, head, thresholds and model card."""

import dataclasses
import shutil

from pipeline.arms import MULTITASK
from pipeline.artifacts.config import load_config
from pipeline.artifacts.scores import FILE, ArtifactScores, TestScore
from pipeline.config import load_json, parse
from pipeline.files import atomic_folder, write_json
from pipeline.interop.model_card import Corpus, model_card
from pipeline.params import task_of
from stages.runtime.entry import log_read, log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import ARTIFACTS, CORPORA, MODELS, RESULTS


def release(name: str) -> None:
    """Write models/NAME, from the artifact of the arm `multitask` and its metrics."""
    task_of(load_params(), name)
    artifact, output = ARTIFACTS / MULTITASK.name / name, MODELS / name
    metrics = load_json(RESULTS / MULTITASK.name / name / "metrics.json")
    config = load_config(artifact)
    log_read(artifact)
    head = dataclasses.replace(config.heads[name], thresholds=metrics["thresholds"])
    config = dataclasses.replace(config, heads={name: head})
    training_corpora = sorted({name, *config.provenance["pretrained_on"]})
    corpora = {corpus: _corpus(corpus) for corpus in training_corpora}
    card = model_card(name, config, metrics, corpora)
    primary = metrics["primary"]
    scores = ArtifactScores(
        {
            name: TestScore(
                primary,
                float(metrics["test"][primary]),
                metrics["rows"]["test"],
                metrics.get("interval"),
            )
        },
        {corpus: facts.license for corpus, facts in corpora.items()},
    )
    with atomic_folder(output) as temporary:
        for file in sorted(artifact.glob("*.safetensors")):
            shutil.copyfile(file, temporary / file.name)
        write_json(temporary / "config.json", dataclasses.asdict(config))
        write_json(temporary / FILE, dataclasses.asdict(scores))
        (temporary / "README.md").write_text(card, encoding="utf-8")
    log_wrote(output)


def _corpus(name: str) -> Corpus:
    path = CORPORA / f"{name}.json"
    if not path.exists():  # The corpus of an imported prompt may be missing in this project.
        return Corpus(license="unknown", source="unknown (this project has no recipe for it)")
    return parse(Corpus, load_json(path), str(path))


if __name__ == "__main__":
    run(release)
