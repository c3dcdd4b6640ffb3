"""`deep-prompt inspect` counts the values of the backbone that training loads."""

from pathlib import Path

import pytest

from deep_prompt.cli.inspect_artifact import _num_backbone_values
from pipeline.model.backbone import Backbone
from pipeline.params import BackboneParams
from tests.support.small_project import make_encoder_decoder


@pytest.mark.parametrize("decoder", [False, True])
def test_only_a_whole_encoder_decoder_has_a_decoder(decoder: bool, tmp_path: Path) -> None:
    sha256 = make_encoder_decoder(tmp_path / "t5", ["the text number"], "t5")
    params = BackboneParams(f"folder:{tmp_path}/t5", sha256, decoder)
    backbone = Backbone.load(tmp_path / "t5", decoder=decoder)
    assert _num_backbone_values(params) == backbone.num_parameters
