"""The reader of WoZ 2.0: a row per dialogue, with a label for each slot and value."""

import json
import os
from pathlib import Path
from typing import Any, Literal

import pytest

from pipeline.data.readers import READERS
from pipeline.data.readers.woz_json import Options
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems
from pipeline.metrics.dialogue_states import states
from pipeline.tasks.base.row import Row
from pipeline.tasks.dialogue_state_generation import TASK
from tests.support.paths import ROOT

DATA = Path(os.environ.get("DATA_ROOT", ROOT.parent / "shared" / "data")) / "dialogue" / "woz"
CENTRE = Options({"center": "centre"})


def turn(*labels: Any, **changes: object) -> dict[str, object]:
    texts = {"system_transcript": "Where? ", "transcript": "In the center."}
    return {**texts, "turn_label": [*labels], "belief_state": [], **changes}


def read(folder: Path, *dialogues: object, options: Options = CENTRE) -> tuple[list[Row], Problems]:
    path, problems = folder / "woz.json", Problems()
    path.write_text(json.dumps(dialogues), encoding="utf-8")
    return list(READERS["woz_json"].read(path, options, problems)), problems


def test_a_dialogue_makes_a_row(tmp_path: Path) -> None:
    turns = [
        turn(["food", " thai"], system_transcript=""),
        turn(["area", "center"], ["request", "phone"]),
    ]
    rows, problems = read(tmp_path, {"dialogue_idx": 7, "dialogue": turns})
    assert not problems.counts
    assert rows == [
        {
            "where": f"{tmp_path}/woz.json:1",
            "id": "7",
            "system": ["", "Where?"],
            "user": ["In the center."] * 2,
            "labels": [["food=thai"], ["area=centre", "request=phone"]],
        }
    ]


def test_a_row_may_be_a_dialogue_up_to_one_of_its_turns(tmp_path: Path) -> None:
    turns = [turn(["food", "thai"], system_transcript=""), turn()]
    dialogues = [{"dialogue_idx": 7, "dialogue": turns}, {"dialogue": turns[:1]}]
    (whole, other), _ = read(tmp_path, *dialogues)
    rows, problems = read(tmp_path, *dialogues, options=Options(CENTRE.values, "turns"))
    assert problems.counts == {"missing-id": 1}
    assert [(row.get("id"), row["title"]) for row in rows] == [
        ("7-1", "7"),
        ("7-2", "7"),
        (None, f"{tmp_path}/woz.json:1: [1]"),
    ]
    for key in ("system", "user", "labels"):
        assert [row[key] for row in rows] == [whole[key][:1], whole[key], other[key]]


@pytest.mark.parametrize(
    ("dialogue", "kind"),
    [
        ({"dialogue_idx": 7}, "missing-key"),
        ({"dialogue_idx": 7, "dialogue": [turn(["food"])]}, "wrong-type"),
        ({"dialogue_idx": 7, "dialogue": [turn(["food", 3])]}, "wrong-type"),
        ({"dialogue_idx": 7, "dialogue": [turn(transcript=None)]}, "wrong-type"),
        ({"dialogue_idx": 7, "dialogue": ["hello"]}, "wrong-type"),
        ({"dialogue_idx": 7, "dialogue": []}, "turn-count"),
    ],
)
@pytest.mark.parametrize("unit", ["dialogues", "turns"])
def test_an_invalid_dialogue_is_skipped(
    dialogue: object, kind: str, unit: Literal["dialogues", "turns"], tmp_path: Path
) -> None:
    valid = {"dialogue_idx": 8, "dialogue": [turn()]}
    rows, problems = read(tmp_path, valid, dialogue, options=Options(rows=unit))
    assert [row["id"] for row in rows] == ["8" if unit == "dialogues" else "8-1"]
    assert problems.counts == {kind: 1}
    ((_, where, _),) = problems.kept
    assert where.startswith(f"{tmp_path}/woz.json:1: [1]")


def test_a_value_to_rename_that_no_turn_has_is_a_warning(tmp_path: Path) -> None:
    options = Options({"center": "centre", "west side": "west"})
    dialogue = {"dialogue_idx": 7, "dialogue": [turn(["area", "center"])]}
    _, problems = read(tmp_path, dialogue, options=options)
    READERS["woz_json"].check_options(options, "ours.yaml", problems)
    assert problems.counts == {"unmatched-option": 1}
    assert "no turn has the value 'west side'" in str(problems.kept[0])


@pytest.mark.skipif(not DATA.exists(), reason="needs the corpora of DATA_ROOT/dialogue")
def test_woz_has_its_published_size_and_states() -> None:
    """The accumulated labels are the annotated states, except in two turns of training."""
    recipe, problems = load_recipe(ROOT / "data_recipes/woz.yaml"), Problems()
    sizes, different = [], []
    for split in ("train", "validation", "test"):
        (name,) = recipe.files.of(split)
        rows = list(READERS[recipe.reader].read(DATA / name, recipe.options, problems))
        sizes.append((len(rows), sum(len(row["user"]) for row in rows)))
        dialogues = json.loads((DATA / name).read_text("utf-8"))
        for row, dialogue in zip(rows, dialogues, strict=True):
            annotated = [annotated_state(turn) for turn in dialogue["dialogue"]]
            pairs = zip(states(row["labels"]), annotated, strict=True)
            different += [(split, row["id"]) for ours, theirs in pairs if ours != theirs]
    assert not problems.counts
    assert sizes == [(600, 2536), (200, 830), (400, 1646)]
    assert different == [("train", "11")] * 2


@pytest.mark.skipif(not DATA.exists(), reason="needs the corpora of DATA_ROOT/dialogue")
def test_each_turn_of_woz_is_an_example_with_the_state_after_it() -> None:
    recipe, problems = load_recipe(ROOT / "data_recipes/woz_states.yaml"), Problems()
    (name,) = recipe.files.of("test")
    rows = list(READERS[recipe.reader].read(DATA / name, recipe.options, problems))
    examples = [TASK.example(row, (), problems) for row in rows]
    assert not problems.counts
    assert len(examples) == 1646
    for row, example in zip(rows, examples, strict=True):
        *_, state = states(row["labels"])
        assert example is not None
        (made,) = states([example.labels])
        assert made == state


def annotated_state(turn: dict[str, Any]) -> dict[str, str]:
    return {
        slot: CENTRE.values.get(value, value)
        for goal in turn["belief_state"]
        for slot, value in goal["slots"]
        if goal["act"] != "request"
    }
