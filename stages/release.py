"""release@TASK: one folder to share a tuned task: prompt, head, thresholds and model card."""

import dataclasses
import shutil

from pipeline.arms import MULTITASK
from pipeline.artifacts.config import ArtifactConfig, load_config, training_rows_hash
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
    corpora = _corpora(name, config)
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


def _corpora(name: str, config: ArtifactConfig) -> dict[str, CorpusCard]:
    """The source and license of each training corpus of a task's artifact.

    The license that the initial artifact records counts for its corpora, even if a corpus of this
    project has the same name.
    """
    initial = config.provenance["init_from"]
    licenses, folder = initial["licenses"], initial["artifact"]
    recorded = f"see the model card of {folder}"
    corpora = {name: _corpus_of_project(name)}
    for corpus in sorted({*config.provenance["pretrained_on"]} - {name}):
        path = CORPORA / f"{corpus}.json"
        if corpus in licenses:
            corpora[corpus] = CorpusCard(licenses[corpus], recorded)
        elif path.exists():
            corpora[corpus] = _corpus_of_project(corpus)
        else:
            corpora[corpus] = CorpusCard("unknown", f"unknown ({folder} does not record it)")
    rows, initial_rows = (training_rows_hash(p, name) for p in (config.provenance, initial))
    if name in licenses and initial_rows != rows:
        corpora[f"{name} of {folder}"] = CorpusCard(licenses[name], recorded)
    return dict(sorted(corpora.items()))


def _corpus_of_project(name: str) -> CorpusCard:
    path = CORPORA / f"{name}.json"
    return parse(CorpusCard, load_json(path), str(path))


if __name__ == "__main__":
    run(release)
