"""`deep-prompt inspect`: the values of the backbone that training loads, and the provenance."""

from pathlib import Path

import pytest

from deep_prompt.cli.inspect_artifact import _describe_provenance, _num_backbone_values
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
        ("init_from data wnut17", "train: examples 5, features 5"),
        ("init_from licenses", "none"),
        ("seed", "7"),
    ]
