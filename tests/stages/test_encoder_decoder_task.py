"""A mixture of generated texts and questions through the stages, on a tiny BART.

Encoder and decoder read both, under one prompt in all of their attentions.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import UserError
from pipeline.model.prompt import DeepPrompt
from pipeline.params import TrainParams
from pipeline.training.setup import check_hidden_state_cache, new_prompt
from pipeline.world import write_corpus
from tests.stages.test_text_task import params, write_places
from tests.support import tiny
from tests.support.small_project import (
    IN_ONE_PROCESS,
    TASK,
    environment,
    make_encoder_decoder,
    make_project,
    python,
    write_params,
)

STAGES = (
    "prepare places",
    "prepare world_qa",
    "training_params",
    "featurize places",
    "featurize world_qa",
    "mixture_corpora all",
    "mix all",
    "pretrain all",
    "finetune fine_tune places",
    "finetune multitask world_qa",
    "evaluate fine_tune places",
    "evaluate multitask world_qa",
    "probe multitask world_qa",
)
PREDICT = """
import deep_prompt
from deep_prompt.cli.main import main

rows = [
    {"task": "places", "source": "name[Aromi], eatType[pub], area[riverside]"},
    {"task": "world_qa", "context": "Ada went to Rome.", "question": "Where did Ada go?"},
    {"task": "places", "source": "name[Cotto]"},
]
model = deep_prompt.load("artifacts/pretrain/all")
together = [prediction.result for prediction in model.predict(rows)]
assert together == [model(row).result for row in rows]
print("mixed", *(type(result).__name__ for result in together))
pieces = []
tuned = deep_prompt.load("artifacts/fine_tune/places")
streamed = list(tuned.predict(rows[:1], on_text=pieces.append))
assert "".join(pieces) == streamed[0].result.text == tuned(rows[0]).result.text
assert list(tuned.predict(rows[:1], decoding=deep_prompt.Decoding(num_beams=3)))
main(["inspect", "artifacts/pretrain/all"])
try:
    arguments = ["--artifact", "artifacts/pretrain/all", "--to", "peft", "--output", "exported"]
    main(["export", *arguments])
except SystemExit:
    print("not exported")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The project after all stages, and their output."""
    home = tmp_path_factory.mktemp("encoder_decoder")
    folder = home / "project"
    values = make_project(folder)
    texts = write_places(folder)
    write_corpus("qa", folder / "data/raw/qa", 40, 7)
    sha256 = make_encoder_decoder(folder / "bart", texts, "bart")
    values["backbone"] = {"source": "folder:bart", "sha256": sha256, "decoder": True}
    values = params(values)
    values["tasks"]["world_qa"] = {"source": "raw/qa", "init_from": "pretrain/all", **TASK}
    del values["tasks"]["world_srl"]
    values["compare"]["arms"] = ["fine_tune"]
    del values["arms"]["soft_prompt"]
    values["probe"]["tasks"] = ["world_qa"]
    write_params(folder, values)
    done = python(folder, environment(home), "-c", IN_ONE_PROCESS + PREDICT, *STAGES)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout + done.stderr


def test_fine_tuning_learns_the_texts(project: tuple[Path, str]) -> None:
    metrics = json.loads((project[0] / "results/fine_tune/places/metrics.json").read_text())
    assert metrics["test"]["texts"] == 18
    assert metrics["test"]["bleu"] > 40


def test_one_prompt_serves_texts_and_questions(project: tuple[Path, str]) -> None:
    folder, output = project
    config = json.loads((folder / "artifacts/pretrain/all/config.json").read_text())
    assert config["prompt_shape"] == [6, 2, 4, 4, 8], (
        "2 attentions of the encoder, 4 of the decoder"
    )
    assert config["backbone"]["decoder"]
    assert "mixed Generated Extraction Generated" in output
    assert "bart with its decoder" in " ".join(output.replace("│", " ").split())
    layers = (folder / "results/probe/multitask/world_qa/layers.tsv").read_text().splitlines()
    assert len(layers) == 1 + 6


def test_an_export_to_peft_is_refused(project: tuple[Path, str]) -> None:
    _, output = project
    assert "prompts of 'bart' models were not compared with those of peft" in output
    assert "not exported" in output


@pytest.mark.parametrize(
    ("arm", "changes", "message"),
    [
        ("multitask", {"shift_positions": True}, "shift_positions is set, but the backbone's posi"),
        ("multitask", {"scale_shift": True}, "backbone: decoder is true, .*set scale_shift: false"),
        ("soft_prompt", {}, "a soft prompt would take the positions of the text"),
    ],
)
def test_params_that_do_not_fit_are_refused(
    arm: Any, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    backbone = tiny.encoder_decoder("bart")
    training = TrainParams(1.0, 0.1, 0.1, **changes)
    with pytest.raises(UserError, match=f"^params.yaml: pretrain.all: {message}"):
        new_prompt(arm, "pretrain.all", backbone, [], training, 0)


def test_a_cache_of_hidden_states_is_refused() -> None:
    backbone = tiny.encoder_decoder("t5")
    training = TrainParams(1.0, 0.1, 0.1, hidden_state_cache_mb=10)
    values = torch.zeros(2, *backbone.prompt_shape(3)[1:])
    prompt = DeepPrompt(values, first_layer=backbone.num_layers - 2)
    with pytest.raises(UserError, match="need more than the output of the lower layers"):
        check_hidden_state_cache("pretrain.all", prompt, backbone, training)
