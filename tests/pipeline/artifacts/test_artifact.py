"""A saved artifact loads unchanged; a mismatch is refused with file, value and remedy."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.arms import ARMS, ArmName
from pipeline.artifacts.artifact import (
    check_no_lora_beside_prompt,
    init_head,
    load_heads,
    load_into_backbone,
    load_prompt,
    save_artifact,
)
from pipeline.artifacts.config import ArtifactConfig, TaskHead, artifact_hashes, load_config
from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.lora import add_lora, lora_factors
from pipeline.model.prompt import DeepPrompt, Projection, TaskFactors
from pipeline.model.prompted_model import PromptedModel, part_of
from pipeline.model.scale_shift import new_scale_shift
from pipeline.params import BackboneParams
from tests.support import tiny

SOURCE = BackboneParams("folder:models/tiny", "a" * 64)
HEADS = {
    "ner": TaskHead("token_classification", "classes", ("O", "B-X", "I-X")),
    "qa": TaskHead("span_extraction", "positions", ("start", "end")),
}


def config(model: PromptedModel, arm: ArmName, **changes: Any) -> ArtifactConfig:
    shape = None if model.prompt is None else tuple(next(model.prompt.parameters()).shape)
    fields: dict[str, Any] = {"provenance": {"seed": 1, "data": {"ner": {"rows": 3}}}}
    if "lora" in ARMS[arm].parts:
        fields |= {"lora_rank": 2, "lora_alpha": 4.0}
    fields["random_weights"] = model.backbone.random_weights
    result = ArtifactConfig(arm, SOURCE, "bert", 16, HEADS, shape, **fields)
    return dataclasses.replace(result, **changes)


def saved(folder: Path, arm: ArmName = "deep_prompt", **changes: Any) -> PromptedModel:
    model = tiny.prompted(arm)
    save_artifact(folder, model, config(model, arm, **changes))
    return model


def refuse(load: Callable[[], object]) -> list[str]:
    with pytest.raises(UserError) as caught:
        load()
    return list(caught.value.problems)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return tiny.backbone()


@pytest.mark.parametrize("arm", ARMS)
def test_a_saved_artifact_loads_unchanged(arm: ArmName, tmp_path: Path) -> None:
    model = tiny.prompted(arm)
    with torch.no_grad():
        for name, factor in model.trainable_state().items():
            factor.add_(0.5 * ("lora_B" in name))  # The initial value is 0: change it.
    save_artifact(tmp_path / "a", model, config(model, arm))
    loaded = load_config(tmp_path / "a")
    assert loaded == config(model, arm)
    is_random = ARMS[arm].random_backbone
    other = tiny.random_backbone(seed=0) if is_random else tiny.backbone(seed=8)
    prompt = load_prompt(tmp_path / "a", loaded, SOURCE, other)
    if model.prompt is None:
        assert prompt is None
    else:
        assert type(prompt) is type(model.prompt)
        assert torch.equal(next(prompt.parameters()), next(model.prompt.parameters()))
    heads = Heads(["positions", "classes"], [2, 3], 16, seed=9)
    load_heads(
        tmp_path / "a", loaded, heads, {name: loaded.heads[name].classes for name in ("qa", "ner")}
    )
    assert torch.equal(heads.weight[0, :2], model.heads.weight[1, :2])
    assert torch.equal(heads.weight[1], model.heads.weight[0])
    assert torch.equal(heads.bias, model.heads.bias[[1, 0]])
    names = {"config.json", "heads.safetensors"} | (
        {"prompt.safetensors"} if model.prompt else set()
    )
    names |= {"fine_tune": {"backbone.safetensors"}, "lora": {"lora.safetensors"}}.get(arm, set())
    assert {path.name for path in (tmp_path / "a").iterdir()} == names
    load_into_backbone(tmp_path / "a", loaded, other)
    for name, value in model.backbone.state_dict().items():
        same = torch.equal(value, other.state_dict()[name])
        stored = arm == "fine_tune" or "lora_" in name
        assert same == (stored or is_random or "position_ids" in name), name


def test_a_prompt_with_scales_and_low_rank_factors_computes_the_same_after_loading(
    tmp_path: Path,
) -> None:
    """The scales and shifts belong to the frozen projections, not to their sums with factors."""
    backbone = tiny.backbone()
    scale_shift = torch.randn_like(new_scale_shift(backbone.scaled_modules(), range(3)))
    prompt = DeepPrompt(torch.randn(3, 2, 4, 3, 4), scale_shift=scale_shift)
    add_lora(backbone, rank=2, alpha=4.0, seed=0)
    model = PromptedModel(backbone, prompt, tiny.prompted("multitask").heads, False)
    assert {part_of(name) for name in model.trainable_state()} == {"prompt", "lora", "head"}
    with torch.no_grad():
        for factor in lora_factors(backbone).values():
            factor.normal_()
    options = {"lora_rank": 2, "lora_alpha": 4.0, "scale_shift": True}
    shape = tuple(prompt.shape)
    save_artifact(tmp_path / "a", model, config(model, "multitask", prompt_shape=shape, **options))
    loaded, other = load_config(tmp_path / "a"), tiny.backbone()
    other_prompt = load_prompt(tmp_path / "a", loaded, SOURCE, other)
    load_into_backbone(tmp_path / "a", loaded, other)
    assert isinstance(other_prompt, DeepPrompt)
    rows = [[5, 6, 7], [8, 9]]
    for actual, expected in zip(
        other.run_rows(rows, other_prompt()), backbone.run_rows(rows, prompt()), strict=True
    ):
        assert torch.equal(actual, expected)
    (problem,) = refuse(lambda: check_no_lora_beside_prompt(tmp_path / "a", loaded))
    assert "its prompt was trained with LoRA factors" in problem


def test_an_artifact_and_a_backbone_with_other_random_weights_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a", "random_backbone")
    saved(tmp_path / "b")
    random, pretrained = load_config(tmp_path / "a"), load_config(tmp_path / "b")
    weights = random.random_weights
    assert weights is not None
    changed = dataclasses.replace(
        random,
        random_weights=dataclasses.replace(weights, sha256="0" * 64, versions="torch 1.0"),
    )
    cases = [
        (random, tiny.backbone(), "random weights of seed 0", "pretrained weights"),
        (random, tiny.random_backbone(seed=1), "random weights of seed 0", "weights of seed 1"),
        (pretrained, tiny.random_backbone(), "pretrained weights", "random weights of seed 0"),
    ]
    for config, backbone, expected, actual in cases:
        (problem,) = refuse(lambda c=config, b=backbone: load_prompt(tmp_path, c, SOURCE, b))
        assert problem.startswith(f"{tmp_path}: it was made for {expected} of the backbone, not ")
        assert problem.endswith(f"{actual}; use an artifact of another arm")
    (problem,) = refuse(lambda: load_prompt(tmp_path, changed, SOURCE, tiny.random_backbone()))
    assert problem == (
        f"{tmp_path}: {weights.versions} on this machine draw other random weights from seed 0 "
        "than torch 1.0 in its training; install those versions, use a CPU with the same "
        "instructions (AVX2 or not), or make the artifact again"
    )


@pytest.mark.parametrize(
    ("arm", "other", "message"),
    [
        ("random_backbone", "deep_prompt", "arm is deep_prompt, but random_weights has a record"),
        ("deep_prompt", "random_backbone", "is random_backbone, but random_weights has no record"),
    ],
)
def test_random_weights_of_another_arm_are_refused(
    arm: ArmName, other: str, message: str, tmp_path: Path
) -> None:
    saved(tmp_path / "a", arm)
    path = tmp_path / "a/config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"arm": other}))
    (problem,) = refuse(lambda: load_config(tmp_path / "a"))
    assert message in problem


def test_the_config_of_another_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert", "hidden_size": 32}')
    with pytest.raises(
        UserError, match="is not the config of an artifact; give a folder"
    ) as caught:
        load_config(tmp_path)
    assert len(caught.value.problems) == 1


def test_load_heads_can_load_one_of_several_heads(tmp_path: Path) -> None:
    model = saved(tmp_path / "a")
    heads = Heads(["classes"], [3], 16, seed=9)
    load_heads(
        tmp_path / "a",
        load_config(tmp_path / "a"),
        heads,
        {"ner": load_config(tmp_path / "a").heads["ner"].classes},
    )
    assert torch.equal(heads.weight[0], model.heads.weight[0])


def test_a_new_head_starts_from_the_heads_of_the_same_task_type(tmp_path: Path) -> None:
    """A class has the mean of the classes with its name; an unknown class keeps its start."""
    model = tiny.prompted("head_only")
    model.heads = Heads(["classes", "positions", "classes"], [3, 2, 2], 16, seed=1)
    model.heads.bias.data += torch.arange(9.0).view(3, 3)
    made = config(tiny.prompted("head_only"), "head_only")
    ner, qa = made.heads["ner"], made.heads["qa"]
    other = dataclasses.replace(ner, classes=("O", "C"))
    made = dataclasses.replace(made, heads={"ner": ner, "qa": qa, "other": other})
    save_artifact(tmp_path / "a", model, made)
    first, _, third = ner.classes
    heads = Heads(["classes"], [4], 16, seed=9)
    weight, bias = heads.weight[0].detach().clone(), model.heads.bias
    classes = ("new", third, "C", first)
    assert first == "O"
    assert init_head(tmp_path / "a", made, heads, ner.type, classes) == [third, "C", "O"]
    assert torch.equal(heads.weight[0, 0], weight[0])
    assert torch.equal(heads.weight[0, 1], model.heads.weight[0, 2])
    assert torch.equal(heads.weight[0, 2], model.heads.weight[2, 1])
    assert torch.equal(
        heads.weight[0, 3], (model.heads.weight[0, 0] + model.heads.weight[2, 0]) / 2
    )
    assert torch.equal(
        heads.bias[0],
        torch.stack([torch.zeros(()), bias[0, 2], bias[2, 1], bias[:, 0][[0, 2]].mean()]),
    )
    answers = Heads(["positions"], [2], 16, seed=9)
    assert init_head(tmp_path / "a", made, answers, qa.type, qa.classes) == list(qa.classes)
    assert torch.equal(answers.weight[0], model.heads.weight[1, :2])
    assert init_head(tmp_path / "a", made, heads, "multiple_choice", classes) == []


@pytest.mark.parametrize("arm", ["deep_prompt", "fine_tune", "lora"])
def test_equal_inputs_give_equal_bytes(arm: ArmName, tmp_path: Path) -> None:
    saved(tmp_path / "a", arm)
    saved(tmp_path / "b", arm)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_an_artifact_is_replaced_as_a_whole(tmp_path: Path) -> None:
    saved(tmp_path / "a", "fine_tune")
    saved(tmp_path / "a", "head_only")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "config.json",
        "heads.safetensors",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"model_type": "roberta"}, ["model_type is 'roberta', but the backbone's is 'bert'"]),
        ({"hidden_size": 32}, ["hidden_size is 32, but the backbone's is 16"]),
        (
            {"backbone": BackboneParams("folder:models/tiny", "b" * 64)},
            ["made for backbone folder:models/tiny", "b" * 64, "a" * 64],
        ),
        (
            {"backbone": dataclasses.replace(SOURCE, decoder=True)},
            ["backbone.decoder is True, but the backbone is loaded without its decoder"],
        ),
        ({"position_offset": -1}, ["position_offset is -1; it cannot be negative"]),
        (
            {"first_layer": 1},
            [
                "prompt_shape is (3, 2, 4, 3, 4) from layer 1 on",
                "but the backbone takes (3, 2, 4, P, 4)",
            ],
        ),
    ],
)
def test_a_different_backbone_is_refused(
    changes: dict[str, Any], parts: list[str], backbone: Backbone, tmp_path: Path
) -> None:
    saved(tmp_path / "a", **changes)
    (problem,) = refuse(
        lambda: load_prompt(tmp_path / "a", load_config(tmp_path / "a"), SOURCE, backbone)
    )
    for part in [
        str(tmp_path / "a"),
        *parts,
        "use the backbone it was made for, or make the artifact again",
    ]:
        assert part in problem


def test_an_artifact_of_another_config_or_tokenizer_is_refused(tmp_path: Path) -> None:
    """An artifact of an earlier version, without hashes, still loads."""
    files = {"config.json": "1" * 64, "vocab.txt": "2" * 64}
    fast = {"config.json": "1" * 64, "tokenizer.json": "5" * 64}
    body = tiny.backbone()
    for number, (recorded, loaded, differing) in enumerate(
        [
            (files, files, ""),
            ({}, files, ""),
            (files, {}, ""),
            (files, files | {"vocab.txt": "3" * 64}, "vocab.txt"),
            (files, files | {"added_tokens.json": "4" * 64}, "added_tokens.json"),
            (fast | files, fast, ""),
            (fast, fast | files, ""),
            (fast | files, fast | {"vocab.txt": "3" * 64}, "vocab.txt"),
            (fast, fast | {"tokenizer_config.json": "6" * 64}, "tokenizer_config.json"),
        ]
    ):
        folder = tmp_path / str(number)
        saved(folder, backbone_files=recorded)
        body.files = loaded
        if not differing:
            assert load_prompt(folder, load_config(folder), SOURCE, body) is not None
            continue
        (problem,) = refuse(lambda: load_prompt(folder, load_config(folder), SOURCE, body))  # noqa: B023
        assert f"it was made with another {differing} of the backbone" in problem


def test_the_options_of_a_prompt_are_restored(backbone: Backbone, tmp_path: Path) -> None:
    model = tiny.prompted("deep_prompt")
    values = torch.randn(2, 2, 4, 3, 4)
    options: dict[str, Any] = {"first_layer": 1, "position_offset": 3, "zero_token_types": True}
    model.prompt = DeepPrompt(values, **options)
    save_artifact(tmp_path / "a", model, config(model, "deep_prompt", **options))
    loaded = load_prompt(tmp_path / "a", load_config(tmp_path / "a"), SOURCE, backbone, dropout=0.2)
    assert isinstance(loaded, DeepPrompt)
    assert {name: getattr(loaded, name) for name in options} == options
    assert loaded.dropout.p == 0.2
    assert torch.equal(loaded.materialize(), values)


def test_a_position_offset_needs_absolute_positions(tmp_path: Path) -> None:
    model = tiny.prompted("deep_prompt", "deberta-v2")
    save_artifact(
        tmp_path / "a",
        model,
        config(model, "deep_prompt", model_type="deberta-v2", position_offset=3),
    )
    (problem,) = refuse(
        lambda: load_prompt(tmp_path / "a", load_config(tmp_path / "a"), SOURCE, model.backbone)
    )
    assert "position_offset is 3, but the backbone's positions are relative" in problem


def test_a_projection_is_saved_with_the_materialized_prompt(
    backbone: Backbone, tmp_path: Path
) -> None:
    model = tiny.prompted("deep_prompt")
    projection = Projection(torch.randn(3, 16), 5, 3 * 2 * 4 * 4, seed=2)
    model.prompt = DeepPrompt(torch.zeros(3, 2, 4, 3, 4), projection=projection)
    save_artifact(
        tmp_path / "a",
        model,
        config(model, "deep_prompt", prompt_shape=(3, 2, 4, 3, 4), projection_size=5),
    )
    loaded = load_config(tmp_path / "a")
    flat = load_prompt(tmp_path / "a", loaded, SOURCE, backbone)
    whole = load_prompt(tmp_path / "a", loaded, SOURCE, backbone, projection=5)
    assert isinstance(flat, DeepPrompt)
    assert isinstance(whole, DeepPrompt)
    assert torch.equal(flat.materialize(), model.prompt.materialize())
    assert torch.equal(whole.materialize(), model.prompt.materialize())
    assert {name for name, _ in flat.named_parameters()} == {"key_values"}
    assert {name for name, _ in whole.named_parameters()} == {
        f"projection.{name}" for name, _ in projection.named_parameters()
    }
    (problem,) = refuse(lambda: load_prompt(tmp_path / "a", loaded, SOURCE, backbone, projection=6))
    assert "projection_size is 5, but params have 6" in problem


def test_the_prompt_of_a_task_includes_its_factors(backbone: Backbone, tmp_path: Path) -> None:
    model = tiny.prompted("multitask")
    shared = torch.randn(3, 2, 4, 3, 4)
    factors = TaskFactors(2, 3, 2, 3 * 2 * 4 * 4, seed=1)
    torch.nn.init.normal_(factors.v)
    model.prompt = DeepPrompt(shared, factors=factors)
    save_artifact(
        tmp_path / "a",
        model,
        config(model, "multitask", prompt_shape=tuple(shared.shape), factor_rank=2),
    )
    loaded = load_config(tmp_path / "a")
    for number, task in enumerate(("ner", "qa")):
        prompt = load_prompt(tmp_path / "a", loaded, SOURCE, backbone, task)
        assert isinstance(prompt, DeepPrompt)
        torch.testing.assert_close(prompt.materialize(), model.prompt.materialize(number))
        rows = shared.permute(3, 0, 1, 2, 4).reshape(3, -1) * (
            1 + factors.u[number] @ factors.v[number]
        )
        torch.testing.assert_close(prompt.materialize().permute(3, 0, 1, 2, 4).reshape(3, -1), rows)
    whole = load_prompt(tmp_path / "a", loaded, SOURCE, backbone)
    assert isinstance(whole, DeepPrompt)
    assert torch.equal(whole.materialize(), shared)
    (problem,) = refuse(lambda: load_prompt(tmp_path / "a", loaded, SOURCE, backbone, "srl"))
    assert "factors.safetensors: no factors of rank 2 for 'srl'" in problem
    (problem,) = refuse(
        lambda: load_prompt(tmp_path / "a", loaded, SOURCE, backbone, "qa", projection=5)
    )
    assert "factors for qa, and the MLP of projection_size 5 computes only the shared" in problem


def test_all_differences_are_reported_together(backbone: Backbone, tmp_path: Path) -> None:
    saved(
        tmp_path / "a",
        model_type="llama",
        hidden_size=8,
        backbone=BackboneParams("folder:x", "c" * 64),
    )
    assert (
        len(
            refuse(
                lambda: load_prompt(tmp_path / "a", load_config(tmp_path / "a"), SOURCE, backbone)
            )
        )
        == 3
    )


def test_the_same_weights_at_another_location_are_accepted(
    backbone: Backbone, tmp_path: Path
) -> None:
    saved(tmp_path / "a")
    moved = BackboneParams("package:weights/tiny", SOURCE.sha256)
    assert load_prompt(tmp_path / "a", load_config(tmp_path / "a"), moved, backbone) is not None


def test_hub_revisions_without_a_hash_are_compared_by_name(
    backbone: Backbone, tmp_path: Path
) -> None:
    first, second = (BackboneParams(f"hub:a/b@{digit * 40}") for digit in "12")
    saved(tmp_path / "a", backbone=first)
    loaded = load_config(tmp_path / "a")
    assert load_prompt(tmp_path / "a", loaded, first, backbone) is not None
    hashed = BackboneParams(first.source, "c" * 64)
    assert load_prompt(tmp_path / "a", loaded, hashed, backbone) is not None
    assert (
        "made for backbone hub:a/b@1"
        in refuse(lambda: load_prompt(tmp_path / "a", loaded, second, backbone))[0]
    )


@pytest.mark.parametrize(
    ("arm", "shape"),
    [
        ("deep_prompt", (3, 2, 4, 5, 4)),
        ("deep_prompt", (2, 2, 4, 3, 4)),
        ("deep_prompt", (3, 2, 4, 3, 8)),
        ("deep_prompt", (3,)),
        ("deep_prompt", (3, 16)),
        ("soft_prompt", (5, 16)),
        ("soft_prompt", (3, 2, 4, 3, 4)),
        ("soft_prompt", ()),
    ],
)
def test_a_wrong_prompt_shape_in_the_config_is_refused(
    arm: ArmName, shape: tuple[int, ...], backbone: Backbone, tmp_path: Path
) -> None:
    saved(tmp_path / "a", arm, prompt_shape=shape)
    (problem,) = refuse(
        lambda: load_prompt(tmp_path / "a", load_config(tmp_path / "a"), SOURCE, backbone)
    )
    assert problem.startswith(
        (f"{tmp_path}/a/prompt.safetensors: holds ", f"{tmp_path}/a: prompt_shape is {shape}")
    )
    assert str(shape) in problem
    assert problem.endswith(("make the artifact again", "or make it again"))


def test_a_prompt_with_too_many_layers_is_refused(tmp_path: Path) -> None:
    """The file and config.json agree, but the backbone has fewer layers."""
    saved(tmp_path / "a")
    fewer = tiny.model()
    del fewer.encoder.layer[2:]
    fewer.config.num_hidden_layers = 2
    (problem,) = refuse(
        lambda: load_prompt(tmp_path / "a", load_config(tmp_path / "a"), SOURCE, Backbone(fewer))
    )
    assert (
        "prompt_shape is (3, 2, 4, 3, 4) from layer 0 on, but the backbone takes (2, 2, 4, P, 4)"
        in problem
    )


@pytest.mark.parametrize("head", [Heads(["classes"], [4], 16, 0), Heads(["classes"], [3], 8, 0)])
def test_a_head_with_a_wrong_shape_is_refused(head: Heads, tmp_path: Path) -> None:
    saved(tmp_path / "a")
    loaded = load_config(tmp_path / "a")
    (problem,) = refuse(
        lambda: load_heads(tmp_path / "a", loaded, head, {"ner": loaded.heads["ner"].classes})
    )
    assert (
        problem == f"{tmp_path}/a/heads.safetensors: no head 'ner' of {head.classes[0]} classes; "
        "make the artifact again"
    )


@pytest.mark.parametrize(
    ("name", "message"), [("srl", "has no head 'srl', only"), ("ner", "the classes of 'ner' are")]
)
def test_an_unknown_head_and_wrong_classes_are_refused(
    name: str, message: str, tmp_path: Path
) -> None:
    saved(tmp_path / "a")
    heads = Heads(["classes"], [3], 16, 0)
    (problem,) = refuse(
        lambda: load_heads(
            tmp_path / "a", load_config(tmp_path / "a"), heads, {name: ("x", "y", "z")}
        )
    )
    assert message in problem
    assert problem.startswith(f"{tmp_path}/a/config.json")


@pytest.mark.parametrize(
    "damage", ["missing", "truncated header", "truncated tensors", "text", "folder"]
)
@pytest.mark.parametrize("name", ["prompt", "heads", "backbone"])
def test_a_damaged_file_is_refused(damage: str, name: str, tmp_path: Path) -> None:
    backbone = tiny.backbone()
    saved(tmp_path / "a", "fine_tune" if name == "backbone" else "deep_prompt")
    path = tmp_path / "a" / f"{name}.safetensors"
    content = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(
            {
                "truncated header": content[:20],
                "truncated tensors": content[:-4],
                "text": b"version https://x",
            }[damage]
        )
    loaded = load_config(tmp_path / "a")
    (problem,) = refuse(
        {
            "prompt": lambda: load_prompt(tmp_path / "a", loaded, SOURCE, backbone),
            "heads": lambda: load_heads(
                tmp_path / "a",
                loaded,
                Heads(["classes"], [3], 16, 0),
                {"ner": loaded.heads["ner"].classes},
            ),
            "backbone": lambda: load_into_backbone(tmp_path / "a", loaded, tiny.backbone()),
        }[name]
    )
    assert problem.startswith(
        f"{path}: {'no such file' if damage == 'missing' else 'not a safetensors file'}"
    )
    assert "make" in problem
    assert "again" in problem


def test_backbone_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a", "fine_tune")
    loaded = load_config(tmp_path / "a")
    (problem,) = refuse(
        lambda: load_into_backbone(tmp_path / "a", loaded, tiny.backbone("roberta"))
    )
    assert problem.startswith(f"{tmp_path}/a/backbone.safetensors: does not fit the backbone: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "config.json: no such file; run the stage that makes it"),
        ('{"arm": ', "config.json:1: not valid JSON"),
        ("[]", "config.json: found a list [], expected a mapping of keys to values"),
    ],
)
def test_a_broken_config_is_refused(content: str | None, message: str, tmp_path: Path) -> None:
    saved(tmp_path / "a")
    path = tmp_path / "a" / "config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    (problem,) = refuse(lambda: load_config(tmp_path / "a"))
    assert problem.startswith(f"{tmp_path}/a/{message}")


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("wnut17", "did you mean 'zoo:wnut17'?"),
        ("wnut", "did you mean 'zoo:wnut17'?"),
        ("models/world_ner", "run `dvc repro release@world_ner`"),
    ],
)
def test_the_error_of_a_missing_artifact_names_the_remedy(
    name: str, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (problem,) = refuse(lambda: load_config(Path(name)))
    assert problem.startswith(f"{name}/config.json: no such file; ")
    assert remedy in problem


def change(folder: Path, **values: object) -> list[str]:
    """The problems of a config after a change of its values."""
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return refuse(lambda: load_config(folder))


def test_the_precision_of_an_earlier_version_is_that_of_its_training(tmp_path: Path) -> None:
    file = tmp_path / "config.json"
    for provenance, expected in (
        ({"training": {"precision": "bfloat16"}}, "bfloat16"),
        ({"training": {"epochs": 1.0}}, "float32"),
        ({}, "float32"),
    ):
        saved(tmp_path, provenance=provenance)
        values = json.loads(file.read_text(encoding="utf-8"))
        del values["precision"]
        file.write_text(json.dumps(values), encoding="utf-8")
        assert load_config(tmp_path).precision == expected


def test_another_format_version_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    for values in ({}, {"later_key": 1}):
        problems = change(tmp_path / "a", format=1, **values)
        assert problems == [
            f"{tmp_path}/a/config.json: format is 1, but this version reads 3; "
            "make the artifact again"
        ]


@pytest.mark.parametrize(("heads", "found"), [([1], "a list [1]"), ("ab", "text 'ab'")])
def test_heads_of_another_type_are_refused(heads: Any, found: str, tmp_path: Path) -> None:
    for version in (2, 3):
        saved(tmp_path / "a")
        problems = change(tmp_path / "a", format=version, heads=heads)
        assert [problem for problem in problems if f"heads: found {found}" in problem]


def test_the_hashes_of_an_artifact_are_those_of_the_files_that_training_reads(
    tmp_path: Path,
) -> None:
    saved(tmp_path / "a")
    hashes = artifact_hashes(tmp_path / "a")
    assert [*hashes] == ["config.json", "heads.safetensors", "prompt.safetensors"]
    (tmp_path / "a/.cache").mkdir()
    (tmp_path / "a/README.md").write_text("a card", encoding="utf-8")
    assert artifact_hashes(tmp_path / "a") == hashes
    saved(tmp_path / "a", provenance={"other": 1})
    assert artifact_hashes(tmp_path / "a") != hashes


def test_invalid_values_in_the_config_are_reported_together(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    problems = change(tmp_path / "a", arm="prefix", hidden_size="16")
    assert len(problems) == 2
    assert all(problem.startswith(f"{tmp_path}/a/config.json") for problem in problems)
    assert "'prefix' is not one of the allowed values" in problems[0]
    assert "found text '16', expected an integer" in problems[1]
