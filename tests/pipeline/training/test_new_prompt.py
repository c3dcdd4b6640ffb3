"""New prompts when the training texts are shorter than the prompt."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.arms import ArmName
from pipeline.errors import UserError
from pipeline.features.table import FeatureTable, join_shards, write_shard
from pipeline.model.prompt import DeepPrompt
from pipeline.params import TrainParams
from pipeline.tasks.base.features import Feature
from pipeline.training.setup import TaskData, new_prompt
from tests.support import tiny


@pytest.fixture
def short_texts(tmp_path: Path) -> list[TaskData]:
    """A task with two training texts of three tokens each."""
    features = [Feature(n, [1, 5 + n, 2], [0] * 3, [1], [0], [0], [1], 1) for n in range(2)]
    summary = write_shard(features, tmp_path / "part.arrow")
    join_shards([tmp_path / "part.arrow"], [summary], tmp_path / "train")
    table = FeatureTable(tmp_path / "train")
    data: Any = type("Data", (), {"train": table, "pad_token_id": 0})
    return [data]


def training(**values: Any) -> TrainParams:
    return TrainParams(1.0, 0.1, 0.1, num_virtual_tokens=9, **values)


@pytest.mark.parametrize("projection_size", [0, 4])
def test_a_random_start_needs_no_text(short_texts: list[TaskData], projection_size: int) -> None:
    backbone = tiny.backbone()
    values = training(init="normal", projection_size=projection_size)
    prompt = new_prompt("deep_prompt", "arms.x", backbone, short_texts, values, 7)
    assert isinstance(prompt, DeepPrompt)
    assert prompt.shape == backbone.prompt_shape(9)
    again = new_prompt("deep_prompt", "arms.x", backbone, short_texts, values, 7)
    for name, value in prompt.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])


@pytest.mark.parametrize(
    ("arm", "values"),
    [
        ("soft_prompt", {}),
        ("deep_prompt", {"init": "text"}),
        ("deep_prompt", {"init": "zero_values"}),
    ],
)
def test_a_start_from_text_needs_enough_of_it(
    short_texts: list[TaskData], arm: ArmName, values: dict[str, Any]
) -> None:
    with pytest.raises(UserError, match=r"num_virtual_tokens is 9, but the text .* has 6 tokens"):
        new_prompt(arm, "arms.x", tiny.backbone(), short_texts, training(**values), 7)
