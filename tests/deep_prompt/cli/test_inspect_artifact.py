"""`deep-prompt inspect`: the values of the backbone that training loads, and the provenance."""

from pathlib import Path

import pytest

from deep_prompt.cli.inspect_artifact import _describe_provenance, _num_backbone_values
from deep_prompt.cli.main import main
from pipeline.artifacts.config import load_config
from pipeline.artifacts.scores import load_scores
from pipeline.artifacts.zoo import ZOO
from pipeline.model.backbone import Backbone
from pipeline.params import BackboneParams
from tests.support.small_project import make_encoder_decoder


@pytest.mark.parametrize("decoder", [False, True])
def test_only_a_whole_encoder_decoder_has_a_decoder(decoder: bool, tmp_path: Path) -> None:
    sha256 = make_encoder_decoder(tmp_path / "t5", ["the text number"], "t5")
    params = BackboneParams(f"folder:{tmp_path}/t5", sha256, decoder)
    backbone = Backbone.load(tmp_path / "t5", decoder=decoder)
    assert _num_backbone_values(params) == backbone.num_parameters


def test_the_provenance_has_a_line_per_corpus_without_hashes() -> None:
    train = {"counts": {"texts cut": 3}, "examples": 12, "features": 14, "sha256": "ab"}
    test = {"counts": {}, "examples": 5, "features": 5, "examples_sha256": "cd", "sha256": "ef"}
    initial = {"artifact": "zoo/open", "data": {"wnut17": {"train": test}}, "licenses": {}}
    provenance = {"seed": 7, "data": {"own": {"test": test, "train": train}}, "init_from": initial}
    own = "train: counts (texts cut 3), examples 12, features 14; test: examples 5, features 5"
    assert _describe_provenance(provenance) == [
        ("data own", own),
        ("init_from artifact", "zoo/open"),
        ("init_from data", "wnut17"),
        ("init_from licenses", "none"),
        ("seed", "7"),
    ]


def test_a_zoo_artifact_is_described_with_its_score_and_an_unbroken_hash(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    main(["inspect", "zoo:wnut17"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 80
    assert f"sha256: {load_config(ZOO / 'wnut17').backbone.sha256}" in lines
    score = load_scores(ZOO / "wnut17").tasks["wnut17"]
    assert score.interval is not None
    low, high = score.interval
    expected = f"f1 {score.value:.2f} ({low:.2f} to {high:.2f}) on 1,287 test rows"
    assert sum("score wnut17" in line and expected in line for line in lines) == 1
