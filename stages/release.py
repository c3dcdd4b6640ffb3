"""release@TASK: one folder to share a tuned task: prompt, head, thresholds and model card."""

import dataclasses
import shutil
from collections.abc import Mapping

from pipeline.arms import MULTITASK
from pipeline.artifacts.config import load_config
from pipeline.artifacts.scores import FILE, ArtifactScores, TestScore
from pipeline.config import load_json, parse
from pipeline.files import atomic_folder, write_json
from pipeline.interop.model_card import CorpusCard, model_card
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
    initial = config.provenance["init_from"]
    corpora = {
        corpus: _corpus(corpus, initial["artifact"], initial["licenses"])
        for corpus in training_corpora
    }
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


def _corpus(name: str, init_from: str, licenses: Mapping[str, str]) -> CorpusCard:
    """The source and license of a corpus of this project, or else of the initial artifact."""
    path = CORPORA / f"{name}.json"
    if path.exists():
        return parse(CorpusCard, load_json(path), str(path))
    if name in licenses:
        return CorpusCard(licenses[name], f"see the model card of {init_from}")
    return CorpusCard("unknown", f"unknown ({init_from} does not record it)")


if __name__ == "__main__":
    run(release)
