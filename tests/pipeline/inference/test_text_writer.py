"""The pieces of a generated text are complete characters, and add up to the text."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.inference import generation
from pipeline.inference.loading import load
from tests.support.serving import TEXT, make_text_artifacts

# The decoder's tokenizer has one token per byte of these characters.
WRITTEN = "na\u00efve \u65e5\u672c \U0001f600 end"


def test_characters_of_several_tokens_are_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = load([make_text_artifacts(tmp_path)["story"]])
    ((ids, _),) = predictor.tokenizer.encode_texts([WRITTEN])

    def generate(*_: Any, on_token: Callable[[int], object]) -> list[list[int]]:
        for token in ids:
            on_token(token)
        return [ids]

    monkeypatch.setattr(generation, "generate", generate)
    pieces = list[str]()
    (prediction,) = predictor.predict([{"source": TEXT}], on_text=pieces.append)
    assert prediction.result.text == "".join(pieces) == WRITTEN
    assert {"\u00ef", "\u65e5", "\u672c", "\U0001f600"} < {piece.strip() for piece in pieces}
    assert len(pieces) < len(ids)
