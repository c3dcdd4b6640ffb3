"""Import and export of prompts: equal tensors, and equal hidden states under peft itself."""

import copy
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import UserError
from pipeline.interop.peft import (
    NOT_COMPARED,
    UNSUPPORTED_BY_PEFT,
    from_peft,
    lora_to_peft,
    to_peft,
    verify,
)
from pipeline.interop.ptuning_v2 import from_ptuning_v2
from pipeline.model.backbone import Backbone
from pipeline.model.lora import add_lora, lora_factors
from pipeline.model.prompt import DeepPrompt, Projection, stack_prompts
from pipeline.pretrained.families import FAMILIES
from tests.support import tiny

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning",
    "ignore:Token type ids are not supported:UserWarning",
)
WORKING = sorted(FAMILIES.keys() - UNSUPPORTED_BY_PEFT.keys() - NOT_COMPARED)
ROTARY = [family for family in WORKING if FAMILIES[family].positions == "rotary"]
LENGTHS = [[7], [9, 4, 7, 1]]  # without and with padding
COUNT = 3


def without_window(model: Any) -> Any:
    """Mistral has no sliding window since version 0.2."""
    if model.config.model_type == "mistral":
        model.config.sliding_window = None
    return model


def plain_model(family: str, attention: str = "sdpa") -> Any:
    """A tiny model of transformers, without our attention."""
    only_eager = FAMILIES[family].route == "patched" or family == "gemma2"
    return without_window(tiny.model(family, attention="eager" if only_eager else attention))


def make_backbone(family: str) -> Backbone:
    """The model of `plain_model`, as a backbone."""
    model = without_window(tiny.model(family))
    model.pooler = None
    return Backbone(model)


def save_model(folder: Path, family: str) -> Path:
    """Save the model of `plain_model` to a folder."""
    plain_model(family).save_pretrained(folder)
    return folder


def add_peft_prompt(model: Any, **changes: Any) -> Any:
    """Put a model under prefix tuning of peft, with a prompt that has a large effect."""
    config = peft.PrefixTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=COUNT, **changes
    )
    peft_model = peft.get_peft_model(model, config)
    with torch.no_grad():
        for parameter in peft_model.prompt_encoder.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
            )
    return peft_model.eval()


def deep_prompt(backbone: Backbone, offset: int = 0) -> DeepPrompt:
    return DeepPrompt(
        torch.randn(backbone.prompt_shape(COUNT), generator=torch.Generator().manual_seed(1)),
        position_offset=offset,
    )


def problems_of(run: Callable[[], object]) -> list[str]:
    with pytest.raises(UserError) as caught:
        run()
    return list(caught.value.problems)


def texts(backbone: Backbone, lengths: list[int]) -> tuple[Tensor, Tensor]:
    ids, mask, _ = tiny.texts(lengths, pad_token_id=backbone.config.pad_token_id or 0)
    return ids, mask


def max_difference(hidden_states: Tensor, expected: Tensor, mask: Tensor) -> float:
    return float((hidden_states - expected)[mask.bool()].detach().abs().max())


# peft


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", WORKING)
def test_a_prompt_of_peft_survives_import_and_export(
    family: str, attention: str, tmp_path: Path
) -> None:
    """Hidden states are equal after the import; the export changes only the model name."""
    backbone = make_backbone(family)
    peft_model = add_peft_prompt(plain_model(family, attention))
    peft_model.save_pretrained(tmp_path / "a")
    prompt = from_peft(tmp_path / "a", backbone)
    assert prompt.position_offset == (0 if family == "eurobert" else COUNT)
    for lengths in LENGTHS:
        ids, mask = texts(backbone, lengths)
        expected = peft_model(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden_states = backbone(ids, mask, torch.zeros_like(ids), prompt())
        assert max_difference(hidden_states, expected, mask) < 1e-5
        assert max_difference(backbone(ids, mask, torch.zeros_like(ids)), expected, mask) > 0.1, (
            "the prompt has an effect"
        )
    to_peft(tmp_path / "b", prompt, backbone, "some/model")
    before, after = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in "ab")
    assert before.keys() == after.keys()
    assert torch.equal(before["prompt_embeddings"], after["prompt_embeddings"])
    configs = [
        json.loads((tmp_path / folder / "adapter_config.json").read_text()) for folder in "ab"
    ]
    assert configs[1] == {**configs[0], "base_model_name_or_path": "some/model"}


HEADS = {
    "SEQ_CLS": transformers.AutoModelForSequenceClassification,
    "TOKEN_CLS": transformers.AutoModelForTokenClassification,
    "QUESTION_ANS": transformers.AutoModelForQuestionAnswering,
    "FEATURE_EXTRACTION": transformers.AutoModel,
}


@pytest.mark.parametrize(
    ("family", "task"),
    [
        (family, task)
        for family in ("bert", "electra", "ernie", "roberta")
        for task in HEADS
        if task != "SEQ_CLS" or family in ("bert", "ernie")  # peft fails on the other two
    ],
)
def test_token_types_are_those_that_the_class_of_peft_reads(
    family: str, task: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = tiny.config(family)
    model = HEADS[task].from_config(config).eval()
    peft_config = peft.PrefixTuningConfig(task_type=task, num_virtual_tokens=COUNT)
    peft_model = peft.get_peft_model(model, peft_config).eval()
    peft_model.save_pretrained(tmp_path / "a")
    (model if task == "FEATURE_EXTRACTION" else model.base_model).save_pretrained(tmp_path / "b")
    backbone = Backbone.load(tmp_path / "b")
    prompt = from_peft(tmp_path / "a", backbone)
    ids, mask, types = tiny.texts([9, 4], pad_token_id=config.pad_token_id)
    types = types if backbone.token_types > 1 else torch.zeros_like(types)
    expected = peft_model(
        input_ids=ids, attention_mask=mask, token_type_ids=types, output_hidden_states=True
    )
    for other in (None, DeepPrompt(torch.zeros(backbone.prompt_shape(1)))):
        prompts = stack_prompts([prompt, other], torch.zeros(2, dtype=torch.long))
        for hidden in (backbone(ids, mask, types, prompt()), backbone(ids, mask, types, prompts)):
            assert max_difference(hidden, expected.hidden_states[-1], mask) < 1e-5
    ignores = task in ("QUESTION_ANS", "FEATURE_EXTRACTION")
    assert prompt.zero_token_types == (ignores and family != "roberta")


@pytest.mark.parametrize("family", sorted(UNSUPPORTED_BY_PEFT))
def test_unsupported_families_fail_or_ignore_the_prompt_under_peft(
    family: str, tmp_path: Path
) -> None:
    """This test fails as soon as peft works on one of them."""
    backbone, model = make_backbone(family), plain_model(family)
    layers, _, heads, _, size = backbone.prompt_shape(0)
    peft_model = add_peft_prompt(
        model, num_layers=layers, num_attention_heads=heads, token_dim=heads * size
    )
    for lengths in LENGTHS:
        ids, mask = texts(backbone, lengths)
        if len(lengths) == 1 and family not in ("deberta", "deberta-v2", "modernbert"):
            hidden_states = peft_model(input_ids=ids, attention_mask=mask).last_hidden_state
            assert torch.equal(
                hidden_states, model(input_ids=ids, attention_mask=mask).last_hidden_state
            )
        else:
            with pytest.raises(RuntimeError, match="must match the size of tensor"):
                peft_model(input_ids=ids, attention_mask=mask)
    peft_model.save_pretrained(tmp_path / "a")
    for run in (
        lambda: to_peft(tmp_path / "b", deep_prompt(backbone, COUNT), backbone, "x"),
        lambda: from_peft(tmp_path / "a", backbone),
    ):
        (problem,) = problems_of(run)
        assert problem.startswith(
            f"backbone: prefix tuning of peft does not work on {family!r} models "
            "(its model takes no key/value cache"
        )
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("family", sorted(NOT_COMPARED))
def test_families_that_were_not_compared_with_peft_are_refused(family: str, tmp_path: Path) -> None:
    backbone = make_backbone(family)
    (problem,) = problems_of(
        lambda: to_peft(tmp_path / "a", deep_prompt(backbone, COUNT), backbone, "x")
    )
    assert problem.startswith(f"backbone: prompts of {family!r} models were not compared")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("family", WORKING)
def test_a_prompt_survives_export_and_import(family: str, tmp_path: Path) -> None:
    backbone = make_backbone(family)
    prompt = deep_prompt(backbone, 0 if family == "eurobert" else COUNT)
    to_peft(tmp_path / "a", prompt, backbone, "x")
    back = from_peft(tmp_path / "a", backbone)
    assert torch.equal(back.materialize(), prompt.materialize())
    assert (back.first_layer, back.position_offset) == (0, prompt.position_offset)


@pytest.mark.parametrize("family", WORKING)
def test_verify_accepts_an_export(family: str, tmp_path: Path) -> None:
    backbone, folder = make_backbone(family), save_model(tmp_path / "model", family)
    prompt = deep_prompt(backbone, 0 if family == "eurobert" else COUNT)
    to_peft(tmp_path / "a", prompt, backbone, str(folder))
    for lengths in LENGTHS:
        assert verify(tmp_path / "a", prompt, backbone, folder, *texts(backbone, lengths)) < 1e-6


@pytest.mark.parametrize("family", ROTARY)
def test_rotated_keys_correct_the_position_offset(family: str, tmp_path: Path) -> None:
    backbone, folder = make_backbone(family), save_model(tmp_path / "model", family)
    for offset in (COUNT, 0, 11):
        prompt = deep_prompt(backbone, offset)
        to_peft(tmp_path / "a", prompt, backbone, str(folder))
        assert (
            verify(tmp_path / "a", prompt, backbone, folder, *texts(backbone, [9, 4, 7, 1])) < 1e-5
        )
        table = load_file(tmp_path / "a/adapter_model.safetensors")["prompt_embeddings"].view(
            COUNT, backbone.num_layers, 2, -1
        )
        original = prompt.materialize().permute(3, 0, 1, 2, 4).flatten(3)
        assert torch.equal(table[:, :, 1], original[:, :, 1]), "values have no positions"
        assert torch.equal(table[:, :, 0], original[:, :, 0]) == (
            offset == (0 if family == "eurobert" else COUNT)
        )


@pytest.mark.parametrize("rope", ["linear", "llama3", "yarn", "dynamic", "longrope"])
def test_scaled_rotary_positions_are_corrected_or_refused(
    rope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny.config("llama")
    config.rope_parameters = {
        "rope_theta": 100.0,
        "rope_type": rope,
        "factor": 4.0,
        "original_max_position_embeddings": 16,
        **({"low_freq_factor": 1.0, "high_freq_factor": 4.0} if rope == "llama3" else {}),
        **({"short_factor": [1.0, 1.0], "long_factor": [2.0, 3.0]} if rope == "longrope" else {}),
    }
    monkeypatch.setattr(tiny, "config", lambda family: copy.deepcopy(config))
    backbone = make_backbone("llama")
    assert backbone.model.rotary_emb.rope_type == rope
    assert (backbone.model.rotary_emb.attention_scaling != 1.0) == (rope in ("yarn", "longrope"))
    prompt = deep_prompt(backbone)
    if rope in ("dynamic", "longrope"):
        (problem,) = problems_of(lambda: to_peft(tmp_path / "a", prompt, backbone, "x"))
        assert problem == (
            f"prompt: shifts the text by 0 positions, but peft by 3, and with rope_type '{rope}' "
            "the angles depend on the length of the text; "
            "train a prompt with shift_positions: true"
        )
        prompt = deep_prompt(backbone, COUNT)
    folder = save_model(tmp_path / "model", "llama")
    to_peft(tmp_path / "a", prompt, backbone, str(folder))
    assert verify(tmp_path / "a", prompt, backbone, folder, *texts(backbone, [20, 4])) < 1e-5


def test_a_sliding_window_is_refused_because_it_hides_the_prompt_under_peft(
    tmp_path: Path,
) -> None:
    """Hidden states are equal while prompt and text fit into the window, and differ afterwards."""
    model, backbone = tiny.model("mistral", attention="sdpa"), tiny.backbone("mistral")
    model.config.sliding_window = backbone.config.sliding_window = 6
    peft_model = add_peft_prompt(model)
    peft_model.save_pretrained(tmp_path / "a")
    table = load_file(tmp_path / "a/adapter_model.safetensors")["prompt_embeddings"]
    prompt = DeepPrompt(
        table.view(COUNT, *backbone.prompt_shape(0)[:3], -1).permute(1, 2, 3, 0, 4),
        position_offset=COUNT,
    )
    ids, mask = texts(backbone, [9])
    expected = peft_model(input_ids=ids, attention_mask=mask).last_hidden_state
    hidden_states = backbone(ids, mask, torch.zeros_like(ids), prompt())
    assert max_difference(hidden_states[:, :COUNT], expected[:, :COUNT], mask[:, :COUNT]) < 1e-5
    assert max_difference(hidden_states[:, COUNT:], expected[:, COUNT:], mask[:, COUNT:]) > 0.1
    for run in (
        lambda: from_peft(tmp_path / "a", backbone),
        lambda: to_peft(tmp_path / "b", prompt, backbone, "x"),
    ):
        (problem,) = problems_of(run)
        assert problem.startswith(
            "backbone: sliding_window is 6; under peft, tokens beyond the window do not see"
        )
        assert problem.endswith("set sliding_window to null in the backbone's config.json")


def test_verify_accepts_an_export_for_a_real_backbone(
    minilm: Backbone, minilm_folder: Path, tmp_path: Path
) -> None:
    ids, mask, _ = tiny.texts([12, 5])
    prompt = DeepPrompt(torch.randn(minilm.prompt_shape(8)), position_offset=8)
    to_peft(tmp_path / "a", prompt, minilm, str(minilm_folder))
    assert verify(tmp_path / "a", prompt, minilm, minilm_folder, ids + 2000 * mask, mask) < 1e-5


def test_the_import_holds_the_output_of_a_projection_of_peft(tmp_path: Path) -> None:
    backbone, peft_model = (
        tiny.backbone(),
        add_peft_prompt(plain_model("bert"), prefix_projection=True, encoder_hidden_size=5),
    )
    peft_model.save_pretrained(tmp_path / "a")
    prompt = from_peft(tmp_path / "a", backbone)
    ids, mask = texts(backbone, [9, 4])
    expected = peft.PeftModel.from_pretrained(plain_model("bert"), str(tmp_path / "a")).eval()(
        input_ids=ids, attention_mask=mask
    )
    hidden_states = backbone(ids, mask, torch.zeros_like(ids), prompt())
    assert max_difference(hidden_states, expected.last_hidden_state, mask) < 1e-5
    assert torch.equal(
        prompt.materialize().permute(3, 0, 1, 2, 4).flatten(1),
        peft_model.get_prompt_embedding_to_save("default"),
    )


def test_the_export_holds_the_output_of_our_projection(tmp_path: Path) -> None:
    backbone = tiny.backbone()
    shape = backbone.prompt_shape(COUNT)
    prompt = DeepPrompt(
        torch.zeros(shape),
        projection=Projection(torch.randn(COUNT, 16), 5, 96, seed=2),
        position_offset=COUNT,
    )
    to_peft(tmp_path / "a", prompt, backbone, "x")
    assert torch.equal(from_peft(tmp_path / "a", backbone).materialize(), prompt.materialize())


def test_half_precision_is_imported_exactly(tmp_path: Path) -> None:
    backbone, prompt = tiny.backbone(), deep_prompt(tiny.backbone(), COUNT)
    to_peft(tmp_path / "a", prompt, backbone, "x")
    path = tmp_path / "a/adapter_model.safetensors"
    save_file({"prompt_embeddings": load_file(path)["prompt_embeddings"].bfloat16()}, path)
    assert torch.equal(
        from_peft(tmp_path / "a", backbone).materialize(), prompt.materialize().bfloat16().float()
    )


def test_the_import_ignores_a_head_and_refuses_a_trained_backbone(tmp_path: Path) -> None:
    backbone = tiny.backbone()
    for name, saved in (("a", ["classifier"]), ("b", ["classifier", "LayerNorm"])):
        model = transformers.AutoModelForTokenClassification.from_config(tiny.config("bert"))
        config = peft.PrefixTuningConfig(
            task_type="TOKEN_CLS", num_virtual_tokens=COUNT, modules_to_save=saved
        )
        peft.get_peft_model(model, config).save_pretrained(tmp_path / name)
    assert load_file(tmp_path / "a/adapter_model.safetensors").keys() > {"prompt_embeddings"}
    assert from_peft(tmp_path / "a", backbone).shape == backbone.prompt_shape(COUNT)
    (problem,) = problems_of(lambda: from_peft(tmp_path / "b", backbone))
    assert problem.startswith(
        f"{tmp_path}/b/adapter_model.safetensors: contains weights of the backbone "
        "(base_model.bert.embeddings.LayerNorm.bias; modules_to_save is "
    )
    assert problem.endswith("train an adapter without modules_to_save")


def test_an_export_replaces_the_folder_and_its_bytes_depend_on_the_prompt_only(
    tmp_path: Path,
) -> None:
    backbone = tiny.backbone()
    for name in "aba":
        to_peft(tmp_path / name, deep_prompt(backbone, COUNT), backbone, "x")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


# Refused exports


def test_learned_positions_cannot_be_corrected(tmp_path: Path) -> None:
    for family in ("bert", "gpt2"):
        backbone = tiny.backbone(family)
        (problem,) = problems_of(
            lambda backbone=backbone: to_peft(tmp_path / "a", deep_prompt(backbone), backbone, "x")
        )
        assert problem == (
            "prompt: shifts the text by 0 positions, but peft by 3, and the export cannot correct "
            "this without rotary positions; train a prompt with shift_positions: true"
        )


def test_an_export_reports_all_problems_at_once(tmp_path: Path) -> None:
    backbone = tiny.backbone()
    prompt = DeepPrompt(torch.zeros(2, 2, 4, COUNT, 8), first_layer=1)
    problems = problems_of(lambda: to_peft(tmp_path / "a", prompt, backbone, "x"))
    assert problems[0].startswith("prompt: shifts the text by 0 positions")
    assert problems[1] == (
        "prompt: covers layers 1 to 2 of 0 to 2, but peft needs all layers; "
        "train a prompt with prompt_layers: all"
    )
    assert problems[2] == (
        "prompt: its shape is (2, 2, 4, 3, 8), but the backbone needs (3, 2, 4, 3, 4); "
        "use the backbone it was made for"
    )
    assert len(problems) == 3
    assert not any(tmp_path.iterdir())


# Refused imports


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter for the tiny BERT model."""
    backbone = tiny.backbone()
    to_peft(tmp_path / "a", deep_prompt(backbone, COUNT), backbone, "x")
    return tmp_path / "a"


def with_config(adapter: Path, drop: str = "", **changes: Any) -> list[str]:
    """Change the config of an adapter and return the problems of its import."""
    path = adapter / "adapter_config.json"
    values = {**json.loads(path.read_text()), **changes}
    values.pop(drop, None)
    path.write_text(json.dumps(values))
    return problems_of(lambda: from_peft(adapter, tiny.backbone()))


def with_tensors(adapter: Path, tensors: dict[str, Tensor]) -> list[str]:
    """Replace the tensors of an adapter and return the problems of its import."""
    save_file(tensors, adapter / "adapter_model.safetensors")
    return problems_of(lambda: from_peft(adapter, tiny.backbone()))


def test_an_adapter_of_another_method_is_refused(adapter: Path) -> None:
    assert with_config(adapter, peft_type="LORA", r=8, lora_alpha=16) == [
        f"{adapter}/adapter_config.json: peft_type is 'LORA', and only PREFIX_TUNING is a deep "
        "prompt; give a prefix tuning adapter"
    ]
    assert "peft_type is None" in with_config(adapter, drop="peft_type")[0]


def test_an_adapter_of_another_shape_is_refused(adapter: Path) -> None:
    path = adapter / "adapter_config.json"
    problems = with_config(
        adapter, num_virtual_tokens=4, num_layers=2, num_attention_heads=2, token_dim=8
    )
    assert problems == [
        *(
            f"{path}: {name} is {actual}, but the backbone has {expected}; "
            "use the backbone it was made for"
            for name, actual, expected in (
                ("num_layers", 2, 3),
                ("num_attention_heads", 2, 4),
                ("token_dim", 8, 16),
            )
        ),
        f"{adapter}/adapter_model.safetensors: the shape of prompt_embeddings is (3, 96), "
        "but the backbone needs (4, 96); use the backbone it was made for",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"drop": "num_layers"}, "key 'num_layers' is missing; add it"),
        ({"num_layers": "3"}, "num_layers: found text '3', expected an integer"),
        (
            {"num_transformer_submodules": 2},
            "num_transformer_submodules: 2 is not one of the allowed values",
        ),
    ],
)
def test_an_invalid_config_is_refused_by_key(
    changes: dict[str, Any], message: str, adapter: Path
) -> None:
    (problem,) = with_config(adapter, **changes)
    assert problem.startswith(f"{adapter}/adapter_config.json: {message}")


def test_an_unknown_key_is_a_warning(adapter: Path) -> None:
    path, backbone = adapter / "adapter_config.json", tiny.backbone()
    expected = from_peft(adapter, backbone)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prefix_scale": 3, "other": None}))
    with pytest.warns(UserWarning, match="unknown key") as caught:
        prompt = from_peft(adapter, backbone)
    assert [str(warning.message) for warning in caught] == [
        f"{path}: unknown key {key!r} is {value!r}, and the import ignores it; correct its "
        "spelling, or compare the predictions with those of peft"
        for key, value in (("other", "None"), ("prefix_scale", "3"))
    ]
    assert torch.equal(prompt.materialize(), expected.materialize())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": has no adapter_config.json; give the folder that save_pretrained of peft wrote"),
        ('{"peft_type": ', "/adapter_config.json:1: not valid JSON"),
        ("[]", "/adapter_config.json: found a list [], expected a mapping of keys to values"),
    ],
)
def test_a_missing_or_malformed_config_is_refused(
    content: str | None, message: str, adapter: Path
) -> None:
    path = adapter / "adapter_config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    (problem,) = problems_of(lambda: from_peft(adapter, tiny.backbone()))
    assert problem.startswith(f"{adapter}{message}")


def test_missing_or_unreadable_tensors_are_refused(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    assert with_tensors(adapter, {"x": torch.zeros(1)}) == [
        f"{path}: has no tensor prompt_embeddings; give a file with a prompt"
    ]
    assert with_tensors(
        adapter, {"prompt_embeddings": torch.zeros(3, 96, dtype=torch.float64)}
    ) == [
        f"{path}: prompt_embeddings is torch.float64, which float32 cannot represent; "
        "save it as float32"
    ]
    path.write_bytes(path.read_bytes()[:50])
    assert problems_of(lambda: from_peft(adapter, tiny.backbone()))[0].startswith(
        f"{path}: not a safetensors file ("
    )
    path.unlink()
    assert problems_of(lambda: from_peft(adapter, tiny.backbone()))[0].startswith(
        f"{path}: cannot be read: "
    )


def test_a_pickle_is_refused_with_a_command_that_converts_it(adapter: Path) -> None:
    backbone, path = tiny.backbone(), adapter / "adapter_model.safetensors"
    tensors, expected = load_file(path), from_peft(adapter, backbone)
    torch.save(tensors, adapter / "adapter_model.bin")
    assert torch.equal(from_peft(adapter, backbone).materialize(), expected.materialize()), (
        "the pickle is not read if there is a safetensors file"
    )
    path.unlink()
    (problem,) = problems_of(lambda: from_peft(adapter, backbone))
    command = conversion_command(
        problem, adapter / "adapter_model.bin", "adapter_model.safetensors"
    )
    assert "'prompt_embeddings' in n" in command[2]


def conversion_command(problem: str, pickled: Path, name: str) -> list[str]:
    """The arguments of the command in a message, which stands on a line of its own."""
    first, command, last = problem.splitlines()
    assert first == (
        f"{pickled}: is a pickle, and a pickle can run code when it is loaded; convert it to "
        f"{name}, in the environment that made it, with"
    )
    assert last == "and give that file"
    assert re.match(r"python -c \"import torch, ", command)
    return shlex.split(command)


# verify


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, DeepPrompt, Backbone, Path, Tensor, Tensor]:
    backbone = tiny.backbone()
    prompt = deep_prompt(backbone, COUNT)
    to_peft(tmp_path / "a", prompt, backbone, "x")
    return (
        tmp_path / "a",
        prompt,
        backbone,
        save_model(tmp_path / "model", "bert"),
        *texts(backbone, [9, 4]),
    )


Exported = tuple[Path, DeepPrompt, Backbone, Path, Tensor, Tensor]


@pytest.mark.parametrize("number", [5.0, float("nan")])
def test_verify_detects_a_changed_element(number: float, exported: Exported) -> None:
    path = exported[0] / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["prompt_embeddings"][1, 70] = number
    save_file(tensors, path)
    (problem,) = problems_of(lambda: verify(*exported))
    assert problem.startswith(f"{exported[0]}: the hidden states of peft differ from ours by ")
    assert problem.endswith(
        f"export it again, and check that {exported[3]} is the backbone it was made for"
    )


def test_verify_detects_a_damaged_file(exported: Exported) -> None:
    path = exported[0] / "adapter_model.safetensors"
    path.rename(path.with_suffix(".bin"))  # peft would load it
    assert "is a pickle" in problems_of(lambda: verify(*exported))[0]
    path.write_bytes(b"damaged")
    assert "not a safetensors file" in problems_of(lambda: verify(*exported))[0]


def test_verify_detects_another_backbone(exported: Exported, tmp_path: Path) -> None:
    folder, prompt, backbone, _, *inputs = exported
    tiny.model(seed=5, attention="sdpa").save_pretrained(tmp_path / "other")
    assert (
        "the hidden states of peft differ"
        in problems_of(lambda: verify(folder, prompt, backbone, tmp_path / "other", *inputs))[0]
    )
    (problem,) = problems_of(lambda: verify(folder, prompt, backbone, tmp_path / "none", *inputs))
    assert problem.startswith(f"{folder}: peft cannot run it on {tmp_path}/none: ")


def test_verify_reports_the_error_of_peft(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no cache\nat all")

    monkeypatch.setattr(peft.PeftModelForFeatureExtraction, "forward", fail)
    (problem,) = problems_of(lambda: verify(*exported))
    assert problem == (
        f"{exported[0]}: peft cannot run it on {exported[3]}: no cache; "
        "export it again, with the backbone it was made for"
    )


def test_only_verify_needs_peft(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    folder, prompt, backbone, *_ = exported
    assert problems_of(lambda: verify(*exported)) == [
        "peft is not installed; run pip install 'deep-prompt[peft]'"
    ]
    to_peft(folder, prompt, backbone, "x")
    from_peft(folder, backbone)


def test_verify_prints_nothing(exported: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    verify(*exported)
    assert capfd.readouterr() == ("", "")


# LoRA


def with_factors(family: str, seed: int = 2) -> Backbone:
    """A backbone with factors large enough to matter."""
    backbone = make_backbone(family)
    add_lora(backbone, rank=2, alpha=3.0, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for factor in lora_factors(backbone).values():
            factor.copy_(torch.randn(factor.shape, generator=generator) * 0.5)
    return backbone


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_factors_do_the_same_under_peft(family: str, tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", family)
    backbone, plain = with_factors(family), make_backbone(family)
    lora_to_peft(tmp_path / "a", backbone, str(folder))
    for lengths in LENGTHS:
        ids, mask = texts(backbone, lengths)
        # The order of sums depends on the CPU: on one of them, DeBERTa differs by 3.4e-6.
        assert verify(tmp_path / "a", None, backbone, folder, ids, mask) < 1e-5
        types = torch.zeros_like(ids)
        assert max_difference(backbone(ids, mask, types), plain(ids, mask, types), mask) > 1e-2


def test_equal_factors_give_equal_bytes_and_a_config_of_peft(tmp_path: Path) -> None:
    for name in ("a", "b"):
        lora_to_peft(tmp_path / name, with_factors("llama"), "some/model")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    config = peft.LoraConfig.from_pretrained(str(tmp_path / "a"))
    assert (config.r, config.lora_alpha, config.target_modules) == (2, 3.0, {"q_proj", "v_proj"})
    assert (config.base_model_name_or_path, config.inference_mode) == ("some/model", True)


def test_verify_finds_other_factors_and_a_pickle(tmp_path: Path) -> None:
    folder, backbone = save_model(tmp_path / "model", "bert"), with_factors("bert")
    lora_to_peft(tmp_path / "a", with_factors("bert", seed=3), str(folder))
    run = partial(verify, tmp_path / "a", None, backbone, folder, *texts(backbone, [5]))
    assert "hidden states of peft differ" in problems_of(run)[0]
    path = tmp_path / "a/adapter_model.safetensors"
    path.rename(path.with_suffix(".bin"))
    assert "is a pickle" in problems_of(run)[0]


# P-tuning v2


def checkpoint(path: Path, prefix: str = "", hidden: int = 0, width: int = 96) -> dict[str, Tensor]:
    """Save a checkpoint of P-tuning v2 and return the tensors of its prefix encoder."""
    generator = torch.Generator().manual_seed(6)
    shapes: dict[str, tuple[int, ...]] = {"embedding.weight": (COUNT, 16 if hidden else width)}
    if hidden:
        shapes |= {
            "trans.0.weight": (hidden, 16),
            "trans.0.bias": (hidden,),
            "trans.2.weight": (width, hidden),
            "trans.2.bias": (width,),
        }
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    save_file(
        {f"{prefix}prefix_encoder.{name}": tensor for name, tensor in tensors.items()}
        | {"bert.x": torch.zeros(2)},
        path,
    )
    return tensors


@pytest.mark.parametrize("prefix", ["", "roberta.", "module.model."])
@pytest.mark.parametrize("hidden", [0, 5])
def test_an_imported_checkpoint_equals_the_prompt_of_ptuning_v2(
    hidden: int, prefix: str, tmp_path: Path
) -> None:
    """The reference repeats the operations of the original code by hand."""
    backbone = tiny.backbone("roberta")
    tensors = checkpoint(tmp_path / "model.safetensors", prefix, hidden)
    prompt = from_ptuning_v2(tmp_path / "model.safetensors", backbone)
    rows = tensors["embedding.weight"]
    if hidden:
        rows = (rows @ tensors["trans.0.weight"].T + tensors["trans.0.bias"]).tanh() @ tensors[
            "trans.2.weight"
        ].T
        rows = rows + tensors["trans.2.bias"]
    past = rows.expand(2, -1, -1).reshape(2, COUNT, 6, 4, 4).permute([2, 0, 3, 1, 4]).split(2)
    for layer in range(3):
        for number in range(2):
            expected = past[layer][number, 1]
            torch.testing.assert_close(
                prompt.materialize()[layer, number],
                expected,
                atol=1e-5 if hidden else 0.0,
                rtol=0.0,
            )
    assert (prompt.first_layer, prompt.position_offset) == (0, COUNT)


def test_a_prompt_of_ptuning_v2_works_the_same_under_peft(tmp_path: Path) -> None:
    """Both libraries pass keys and values to the same models as a cache."""
    backbone, folder = tiny.backbone("roberta"), save_model(tmp_path / "model", "roberta")
    checkpoint(tmp_path / "model.safetensors", hidden=5)
    prompt = from_ptuning_v2(tmp_path / "model.safetensors", backbone)
    to_peft(tmp_path / "a", prompt, backbone, "x")
    assert verify(tmp_path / "a", prompt, backbone, folder, *texts(backbone, [9, 4])) < 1e-6


def test_relative_positions_are_not_shifted(tmp_path: Path) -> None:
    checkpoint(tmp_path / "model.safetensors")
    for family, offset in (("deberta-v2", 0), ("deberta", COUNT)):
        prompt = from_ptuning_v2(tmp_path / "model.safetensors", tiny.backbone(family))
        assert prompt.position_offset == offset


def test_families_without_ptuning_v2_models_are_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path / "model.safetensors", width=48)
    (problem,) = problems_of(
        lambda: from_ptuning_v2(tmp_path / "model.safetensors", tiny.backbone("llama"))
    )
    assert problem.startswith(f"{tmp_path}/model.safetensors: P-tuning v2 has no 'llama' models")


def test_a_checkpoint_of_another_shape_is_refused(tmp_path: Path) -> None:
    path, backbone = tmp_path / "model.safetensors", tiny.backbone()
    checkpoint(path, width=64)
    end = "use the backbone it was made for"
    assert problems_of(lambda: from_ptuning_v2(path, backbone)) == [
        f"{path}: the shape of embedding.weight is (3, 64), but the backbone needs (3, 96); {end}"
    ]
    tensors = checkpoint(path, hidden=5, width=64)
    tensors["embedding.weight"] = torch.zeros(3, 8)
    save_file({f"prefix_encoder.{name}": tensor for name, tensor in tensors.items()}, path)
    assert problems_of(lambda: from_ptuning_v2(path, backbone)) == [
        f"{path}: the shape of {name} is {actual}, but the backbone needs {expected}; {end}"
        for name, actual, expected in (
            ("embedding.weight", (3, 8), (3, 16)),
            ("trans.2.weight", (64, 5), (96, 5)),
            ("trans.2.bias", (64,), (96,)),
        )
    ]
    save_file({"prefix_encoder.embedding.weight": torch.tensor(1.0)}, path)
    assert problems_of(lambda: from_ptuning_v2(path, backbone)) == [
        f"{path}: the shape of embedding.weight is (), but the backbone needs (0, 96); {end}"
    ]


@pytest.mark.parametrize(
    ("names", "listed"),
    [
        (["bert.x"], "no tensors"),
        (["prefix_encoder.weight"], "prefix_encoder.weight"),  # the soft prompt of P-tuning v2
        (
            ["prefix_encoder.embedding.weight", "prefix_encoder.trans.0.bias"],
            "prefix_encoder.embedding.weight, prefix_encoder.trans.0.bias",
        ),
        (
            ["a.prefix_encoder.embedding.weight", "b.prefix_encoder.embedding.weight"],
            "a.prefix_encoder.embedding.weight, b.prefix_encoder.embedding.weight",
        ),
    ],
)
def test_a_file_that_is_not_a_checkpoint_of_ptuning_v2_is_refused(
    names: list[str], listed: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(3, 96) for name in names}, path)
    assert problems_of(lambda: from_ptuning_v2(path, tiny.backbone())) == [
        f"{path}: its prefix_encoder has {listed}, expected embedding.weight alone or "
        "embedding.weight, trans.0.bias, trans.0.weight, trans.2.bias, trans.2.weight; "
        "give a checkpoint of P-tuning v2"
    ]


def test_the_command_for_a_pickle_converts_it(tmp_path: Path) -> None:
    tensors = checkpoint(tmp_path / "model.safetensors")
    expected = from_ptuning_v2(tmp_path / "model.safetensors", tiny.backbone())
    (tmp_path / "model.safetensors").unlink()
    shared = torch.zeros(4)
    torch.save(
        {
            "bert.a": shared,
            "bert.b": shared,
            "prefix_encoder.embedding.weight": tensors["embedding.weight"],
        },
        tmp_path / "pytorch_model.bin",
    )
    (problem,) = problems_of(
        lambda: from_ptuning_v2(tmp_path / "pytorch_model.bin", tiny.backbone())
    )
    command = conversion_command(problem, tmp_path / "pytorch_model.bin", "model.safetensors")
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert torch.equal(
        from_ptuning_v2(tmp_path / "model.safetensors", tiny.backbone()).materialize(),
        expected.materialize(),
    )


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs")
    (problem,) = problems_of(lambda: from_ptuning_v2(path, tiny.backbone()))
    assert problem.startswith(f"{path}: not a safetensors file (")
    for path in (tmp_path, tmp_path / "none.safetensors", Path()):
        (problem,) = problems_of(lambda path=path: from_ptuning_v2(path, tiny.backbone()))
        assert problem.startswith(f"{path}: cannot be read: ")
        assert problem.endswith("; give the path of a readable file")
