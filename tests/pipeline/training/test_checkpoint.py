"""Checkpoints: the newest intact checkpoint is loaded, whatever happened to the others."""

from pathlib import Path

import pytest
import torch

from pipeline.training import checkpoint
from pipeline.training.checkpoint import State, load_checkpoint, save_checkpoint


def state(step: int) -> State:
    tensors = {
        "now.prompt": torch.full((3, 4), float(step)),
        "adam.0.step": torch.tensor(float(step)),
        "empty": torch.zeros(0),
    }
    progress = {
        "steps": 9,
        "train": [{"loss": 0.1 + 0.2, "step": step}],
        "best_score": float("nan"),
        "text": "ä",
    }
    return State(step, tensors, progress)


def save(folder: Path, *steps: int) -> None:
    for step in steps:
        save_checkpoint(folder, state(step))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def assert_loads(folder: Path, step: int, broken: int = 0) -> list[str]:
    found, lines = load_checkpoint(folder)
    assert found is not None
    assert found.step == step
    assert str(found.progress) == str(state(step).progress), "floats are exact, and NaN is kept"
    assert found.tensors.keys() == state(step).tensors.keys()
    assert all(
        torch.equal(value, state(step).tensors[name]) for name, value in found.tensors.items()
    )
    assert len(lines) == broken
    return lines


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 9, 10, 11)
    assert names(tmp_path) == ["step-000000010", "step-000000011"]
    assert_loads(tmp_path, 11)


def test_a_new_checkpoint_replaces_broken_later_ones(tmp_path: Path) -> None:
    save(tmp_path, 4, 20, 30)
    for step in (20, 30):
        (tmp_path / f"step-{step:09d}" / "state.json").write_text("torn")
    save(tmp_path, 5)
    assert names(tmp_path) == ["step-000000005"]
    assert_loads(tmp_path, 5)


def test_a_folder_without_checkpoints_loads_none(tmp_path: Path) -> None:
    assert load_checkpoint(tmp_path) == (None, [])
    assert load_checkpoint(tmp_path / "absent") == (None, [])


def test_a_second_checkpoint_of_a_step_replaces_the_first(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, State(3, {}, {}))
    save(tmp_path, 3)
    assert_loads(tmp_path, 3)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
@pytest.mark.parametrize("left", [0, 1, 9, -1])
def test_a_truncated_checkpoint_is_ignored(name: str, left: int, tmp_path: Path) -> None:
    save(tmp_path, 4, 5)
    path = tmp_path / "step-000000005" / name
    path.write_bytes(path.read_bytes()[:left])
    (line,) = assert_loads(tmp_path, 4, broken=1)
    assert "step-000000005" in line
    assert "ignored" in line


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_every_changed_byte_is_detected(name: str, tmp_path: Path) -> None:
    save(tmp_path, 4, 5)
    path = tmp_path / "step-000000005" / name
    content = path.read_bytes()
    for at in range(0, len(content), 3):
        for flipped in (1, 2, 128):
            path.write_bytes(content[:at] + bytes([content[at] ^ flipped]) + content[at + 1 :])
            assert_loads(tmp_path, 4, broken=1)
    path.write_bytes(content)
    assert_loads(tmp_path, 5)


@pytest.mark.parametrize("name", ["state.safetensors", "state.json"])
def test_a_checkpoint_with_a_missing_file_is_ignored(name: str, tmp_path: Path) -> None:
    save(tmp_path, 4, 5)
    (tmp_path / "step-000000005" / name).unlink()
    assert_loads(tmp_path, 4, broken=1)


def test_none_is_loaded_if_all_checkpoints_are_broken(tmp_path: Path) -> None:
    save(tmp_path, 4, 5)
    for path in tmp_path.glob("*/state.json"):
        path.write_text("null")
    found, lines = load_checkpoint(tmp_path)
    assert found is None
    assert len(lines) == 2


def test_a_partial_checkpoint_is_never_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a checkpoint is written, and if the process dies then, the previous one is loaded."""
    save(tmp_path, 4)

    def dies(*_: object, **__: object) -> bytes:
        monkeypatch.undo()
        assert len(list(tmp_path.iterdir())) == 2, (
            "there is a temporary folder next to the checkpoint"
        )
        assert_loads(tmp_path, 4)
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 5)
    monkeypatch.setattr(checkpoint.json, "dumps", dies)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, 5)
    assert_loads(tmp_path, 4)
    (tmp_path / ".step-000000006.killed" / "new").mkdir(parents=True)
    assert_loads(tmp_path, 4)
    save(tmp_path, 7)
    assert_loads(tmp_path, 7)


def test_a_view_of_a_tensor_is_saved(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, State(1, {"a": torch.arange(6).view(2, 3).T}, {}))
    found, _ = load_checkpoint(tmp_path)
    assert found is not None
    assert found.tensors["a"].tolist() == [[0, 3], [1, 4], [2, 5]]
