"""Prompts from and to peft and P-tuning v2: the same numbers, and under the real peft the same hidden states."""

import copy
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import UserError
from pipeline.interop.peft import UNKNOWN_TO_PEFT, from_peft, to_peft, verify
from pipeline.interop.ptuning_v2 import from_ptuning_v2
from pipeline.model.backbone import Backbone
from pipeline.model.prompt import DeepPrompt, Projection
from pipeline.pretrained.families import FAMILIES
from tests.support import tiny

pytestmark = pytest.mark.filterwarnings(
    "ignore:.is_gradient_checkpointing. is deprecated:FutureWarning",
    "ignore:Token type ids are not supported:UserWarning",
)
WORKING = sorted(FAMILIES.keys() - UNKNOWN_TO_PEFT.keys())
ROTARY = [family for family in WORKING if FAMILIES[family].positions == "rotary"]
LENGTHS = [[7], [9, 4, 7, 1]]  # not padded, padded
COUNT = 3


def windowless(made: Any) -> Any:
    """Mistral as it is since version 0.2."""
    if made.config.model_type == "mistral":
        made.config.sliding_window = None
    return made


def stock_of(family: str, attention: str = "sdpa") -> Any:
    """The model as transformers has it."""
    patched = FAMILIES[family].route == "patched"
    return windowless(tiny.model(family, attention="eager" if patched else attention))


def backbone_of(family: str) -> Backbone:
    """The same, as a backbone."""
    made = windowless(tiny.model(family))
    made.pooler = None
    return Backbone(made)


def saved_of(folder: Path, family: str) -> Path:
    """The same, as a folder."""
    stock_of(family).save_pretrained(folder)
    return folder


def peft_of(stock: Any, **changes: Any) -> Any:
    """Under peft's prefix tuning, with a prompt large enough to matter."""
    config = peft.PrefixTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=COUNT, **changes
    )
    made = peft.get_peft_model(stock, config)
    with torch.no_grad():
        for parameter in made.prompt_encoder.parameters():
            parameter.copy_(
                torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
            )
    return made.eval()


def deep_prompt(made: Backbone, offset: int = 0) -> DeepPrompt:
    return DeepPrompt(
        torch.randn(made.prompt_shape(COUNT), generator=torch.Generator().manual_seed(1)),
        position_offset=offset,
    )


def refuse(run: Callable[[], object]) -> list[str]:
    with pytest.raises(UserError) as caught:
        run()
    return list(caught.value.problems)


def texts(made: Backbone, lengths: list[int]) -> tuple[Tensor, Tensor]:
    ids, mask, _ = tiny.texts(lengths, pad_token_id=made.config.pad_token_id or 0)
    return ids, mask


def apart(found: Tensor, expected: Tensor, mask: Tensor) -> float:
    return float((found - expected)[mask.bool()].detach().abs().max())


# peft


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", WORKING)
def test_from_peft_and_back(family: str, attention: str, tmp_path: Path) -> None:
    """A prompt of peft does the same here, and goes back as it came; of the config only the name is another."""
    made, theirs = backbone_of(family), peft_of(stock_of(family, attention))
    theirs.save_pretrained(tmp_path / "a")
    prompt = from_peft(tmp_path / "a", made)
    assert prompt.position_offset == (0 if family == "eurobert" else COUNT)
    for lengths in LENGTHS:
        ids, mask = texts(made, lengths)
        expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
        found = made(ids, mask, torch.zeros_like(ids), prompt())
        assert apart(found, expected, mask) < 1e-5
        assert apart(made(ids, mask, torch.zeros_like(ids)), expected, mask) > 0.1, (
            "the prompt counts"
        )
    to_peft(tmp_path / "b", prompt, made, "some/model")
    before, after = (load_file(tmp_path / folder / "adapter_model.safetensors") for folder in "ab")
    assert before.keys() == after.keys()
    assert torch.equal(before["prompt_embeddings"], after["prompt_embeddings"])
    configs = [
        json.loads((tmp_path / folder / "adapter_config.json").read_text()) for folder in "ab"
    ]
    assert configs[1] == {**configs[0], "base_model_name_or_path": "some/model"}


@pytest.mark.parametrize("family", sorted(UNKNOWN_TO_PEFT))
def test_families_that_peft_does_not_work_on(family: str, tmp_path: Path) -> None:
    """They fail on padded texts, and fail or leave the prompt out on others: as soon as one of them works, this fails."""
    made, stock = backbone_of(family), stock_of(family)
    layers, _, heads, _, size = made.prompt_shape(0)
    theirs = peft_of(stock, num_layers=layers, num_attention_heads=heads, token_dim=heads * size)
    for lengths in LENGTHS:
        ids, mask = texts(made, lengths)
        if len(lengths) == 1 and family not in ("deberta", "deberta-v2", "modernbert"):
            found = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
            assert torch.equal(found, stock(input_ids=ids, attention_mask=mask).last_hidden_state)
        else:
            with pytest.raises(RuntimeError, match="must match the size of tensor"):
                theirs(input_ids=ids, attention_mask=mask)
    theirs.save_pretrained(tmp_path / "a")
    for run in (
        lambda: to_peft(tmp_path / "b", deep_prompt(made, COUNT), made, "x"),
        lambda: from_peft(tmp_path / "a", made),
    ):
        (problem,) = refuse(run)
        assert problem.startswith(
            f"backbone: peft's prefix tuning does not work on {family!r} models (its model takes no cache"
        )
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("family", WORKING)
def test_to_peft_and_back(family: str, tmp_path: Path) -> None:
    made = backbone_of(family)
    prompt = deep_prompt(made, 0 if family == "eurobert" else COUNT)
    to_peft(tmp_path / "a", prompt, made, "x")
    back = from_peft(tmp_path / "a", made)
    assert torch.equal(back.materialize(), prompt.materialize())
    assert (back.first_layer, back.position_offset) == (0, prompt.position_offset)


@pytest.mark.parametrize("family", WORKING)
def test_verify(family: str, tmp_path: Path) -> None:
    made, folder = backbone_of(family), saved_of(tmp_path / "model", family)
    prompt = deep_prompt(made, 0 if family == "eurobert" else COUNT)
    to_peft(tmp_path / "a", prompt, made, str(folder))
    for lengths in LENGTHS:
        assert verify(tmp_path / "a", prompt, made, folder, *texts(made, lengths)) < 1e-6


@pytest.mark.parametrize("family", ROTARY)
def test_turned_keys_make_up_for_positions(family: str, tmp_path: Path) -> None:
    made, folder = backbone_of(family), saved_of(tmp_path / "model", family)
    for offset in (COUNT, 0, 11):
        prompt = deep_prompt(made, offset)
        to_peft(tmp_path / "a", prompt, made, str(folder))
        assert verify(tmp_path / "a", prompt, made, folder, *texts(made, [9, 4, 7, 1])) < 1e-5
        table = load_file(tmp_path / "a/adapter_model.safetensors")["prompt_embeddings"].view(
            COUNT, made.num_layers, 2, -1
        )
        own = prompt.materialize().permute(3, 0, 1, 2, 4).flatten(3)
        assert torch.equal(table[:, :, 1], own[:, :, 1]), "values have no positions"
        assert torch.equal(table[:, :, 0], own[:, :, 0]) == (
            offset == (0 if family == "eurobert" else COUNT)
        )


@pytest.mark.parametrize("rope", ["linear", "llama3", "yarn", "dynamic", "longrope"])
def test_scaled_rotary_positions(
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
    made = backbone_of("llama")
    assert made.model.rotary_emb.rope_type == rope
    assert (made.model.rotary_emb.attention_scaling != 1.0) == (rope in ("yarn", "longrope"))
    prompt = deep_prompt(made)
    if rope in ("dynamic", "longrope"):
        (problem,) = refuse(lambda: to_peft(tmp_path / "a", prompt, made, "x"))
        assert problem == (
            f"prompt: it shifts the text by 0 positions, and peft by 3; with rope_type '{rope}' the text's angles "
            "depend on its length, train one with shift_positions: true"
        )
        prompt = deep_prompt(made, COUNT)
    folder = saved_of(tmp_path / "model", "llama")
    to_peft(tmp_path / "a", prompt, made, str(folder))
    assert verify(tmp_path / "a", prompt, made, folder, *texts(made, [20, 4])) < 1e-5


def test_windows_hide_a_prompt_under_peft(tmp_path: Path) -> None:
    """Measured: alike up to a prompt and text of a window's length, and then no longer; so neither way is open."""
    stock, made = tiny.model("mistral", attention="sdpa"), tiny.backbone("mistral")
    stock.config.sliding_window = made.config.sliding_window = 6
    theirs = peft_of(stock)
    theirs.save_pretrained(tmp_path / "a")
    table = load_file(tmp_path / "a/adapter_model.safetensors")["prompt_embeddings"]
    prompt = DeepPrompt(
        table.view(COUNT, *made.prompt_shape(0)[:3], -1).permute(1, 2, 3, 0, 4),
        position_offset=COUNT,
    )
    ids, mask = texts(made, [9])
    expected = theirs(input_ids=ids, attention_mask=mask).last_hidden_state
    found = made(ids, mask, torch.zeros_like(ids), prompt())
    assert apart(found[:, :COUNT], expected[:, :COUNT], mask[:, :COUNT]) < 1e-5
    assert apart(found[:, COUNT:], expected[:, COUNT:], mask[:, COUNT:]) > 0.1
    for run in (
        lambda: from_peft(tmp_path / "a", made),
        lambda: to_peft(tmp_path / "b", prompt, made, "x"),
    ):
        (problem,) = refuse(run)
        assert problem.startswith(
            "backbone: sliding_window is 6, and peft hides a prompt from tokens past it where ours"
        )
        assert problem.endswith("set sliding_window to null in the backbone's config.json")


def test_a_real_backbone(minilm: Backbone, minilm_folder: Path, tmp_path: Path) -> None:
    ids, mask, _ = tiny.texts([12, 5])
    prompt = DeepPrompt(torch.randn(minilm.prompt_shape(8)), position_offset=8)
    to_peft(tmp_path / "a", prompt, minilm, str(minilm_folder))
    assert verify(tmp_path / "a", prompt, minilm, minilm_folder, ids + 2000 * mask, mask) < 1e-5


def test_a_projection_of_peft_comes_computed(tmp_path: Path) -> None:
    made, theirs = (
        tiny.backbone(),
        peft_of(stock_of("bert"), prefix_projection=True, encoder_hidden_size=5),
    )
    theirs.save_pretrained(tmp_path / "a")
    prompt = from_peft(tmp_path / "a", made)
    ids, mask = texts(made, [9, 4])
    expected = peft.PeftModel.from_pretrained(stock_of("bert"), str(tmp_path / "a")).eval()(
        input_ids=ids, attention_mask=mask
    )
    assert (
        apart(made(ids, mask, torch.zeros_like(ids), prompt()), expected.last_hidden_state, mask)
        < 1e-5
    )
    assert torch.equal(
        prompt.materialize().permute(3, 0, 1, 2, 4).flatten(1),
        theirs.get_prompt_embedding_to_save("default"),
    )


def test_a_projection_of_ours_goes_computed(tmp_path: Path) -> None:
    made = tiny.backbone()
    shape = made.prompt_shape(COUNT)
    prompt = DeepPrompt(
        torch.zeros(shape),
        projection=Projection(torch.randn(COUNT, 16), 5, 96, seed=2),
        position_offset=COUNT,
    )
    to_peft(tmp_path / "a", prompt, made, "x")
    assert torch.equal(from_peft(tmp_path / "a", made).materialize(), prompt.materialize())


def test_half_precision_is_read_exactly(tmp_path: Path) -> None:
    made, prompt = tiny.backbone(), deep_prompt(tiny.backbone(), COUNT)
    to_peft(tmp_path / "a", prompt, made, "x")
    path = tmp_path / "a/adapter_model.safetensors"
    save_file({"prompt_embeddings": load_file(path)["prompt_embeddings"].bfloat16()}, path)
    assert torch.equal(
        from_peft(tmp_path / "a", made).materialize(), prompt.materialize().bfloat16().float()
    )


def test_a_head_of_peft_stays_behind_and_a_trained_backbone_is_refused(tmp_path: Path) -> None:
    made = tiny.backbone()
    for name, saved in (("a", ["classifier"]), ("b", ["classifier", "LayerNorm"])):
        model = transformers.AutoModelForTokenClassification.from_config(tiny.config("bert"))
        config = peft.PrefixTuningConfig(
            task_type="TOKEN_CLS", num_virtual_tokens=COUNT, modules_to_save=saved
        )
        peft.get_peft_model(model, config).save_pretrained(tmp_path / name)
    assert load_file(tmp_path / "a/adapter_model.safetensors").keys() > {"prompt_embeddings"}
    assert from_peft(tmp_path / "a", made).shape == made.prompt_shape(COUNT)
    (problem,) = refuse(lambda: from_peft(tmp_path / "b", made))
    assert problem.startswith(
        f"{tmp_path}/b/adapter_model.safetensors: holds weights of the backbone too "
        "(base_model.bert.embeddings.LayerNorm.bias, modules_to_save is "
    )
    assert problem.endswith("train one without modules_to_save")


def test_equal_prompts_give_equal_bytes_and_the_folder_is_replaced(tmp_path: Path) -> None:
    made = tiny.backbone()
    for name in "aba":
        to_peft(tmp_path / name, deep_prompt(made, COUNT), made, "x")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


# What cannot go to peft


def test_learned_positions_cannot_be_made_up_for(tmp_path: Path) -> None:
    for family in ("bert", "gpt2"):
        made = tiny.backbone(family)
        (problem,) = refuse(lambda made=made: to_peft(tmp_path / "a", deep_prompt(made), made, "x"))
        assert problem == (
            "prompt: it shifts the text by 0 positions, and peft by 3; with learned positions the two are not the "
            "same, train one with shift_positions: true"
        )


def test_all_reasons_at_once(tmp_path: Path) -> None:
    made = tiny.backbone()
    prompt = DeepPrompt(torch.zeros(2, 2, 4, COUNT, 8), first_layer=1)
    problems = refuse(lambda: to_peft(tmp_path / "a", prompt, made, "x"))
    assert problems[0].startswith("prompt: it shifts the text by 0 positions")
    assert (
        problems[1]
        == "prompt: it is in layers 1 to 2 of 0 to 2, and peft's are in all; train one with prompt_layers: all"
    )
    assert problems[2] == (
        "prompt: its shape is (2, 2, 4, 3, 8), the backbone takes (3, 2, 4, 3, 4); "
        "use the backbone it was made for"
    )
    assert len(problems) == 3
    assert not any(tmp_path.iterdir())


# What cannot come from peft


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """An adapter for tiny BERT."""
    made = tiny.backbone()
    to_peft(tmp_path / "a", deep_prompt(made, COUNT), made, "x")
    return tmp_path / "a"


def with_config(adapter: Path, drop: str = "", **changes: Any) -> list[str]:
    """The problems of an adapter with another config."""
    path = adapter / "adapter_config.json"
    values = {**json.loads(path.read_text()), **changes}
    values.pop(drop, None)
    path.write_text(json.dumps(values))
    return refuse(lambda: from_peft(adapter, tiny.backbone()))


def with_tensors(adapter: Path, tensors: dict[str, Tensor]) -> list[str]:
    save_file(tensors, adapter / "adapter_model.safetensors")
    return refuse(lambda: from_peft(adapter, tiny.backbone()))


def test_another_method(adapter: Path) -> None:
    assert with_config(adapter, peft_type="LORA", r=8, lora_alpha=16) == [
        f"{adapter}/adapter_config.json: peft_type is 'LORA'; only PREFIX_TUNING makes a deep prompt"
    ]
    assert "peft_type is None" in with_config(adapter, drop="peft_type")[0]


def test_another_shape(adapter: Path) -> None:
    path = adapter / "adapter_config.json"
    problems = with_config(
        adapter, num_virtual_tokens=4, num_layers=2, num_attention_heads=2, token_dim=8
    )
    assert problems == [
        *(
            f"{path}: {name} is {found}, the backbone has {wanted}; use the backbone it was made for"
            for name, found, wanted in (
                ("num_layers", 2, 3),
                ("num_attention_heads", 2, 4),
                ("token_dim", 8, 16),
            )
        ),
        f"{adapter}/adapter_model.safetensors: the shape of prompt_embeddings is (3, 96), the backbone takes (4, 96); "
        "use the backbone it was made for",
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
        ({"prefix_length": 3}, "unknown key 'prefix_length'"),
    ],
)
def test_a_config_that_is_none(changes: dict[str, Any], message: str, adapter: Path) -> None:
    (problem,) = with_config(adapter, **changes)
    assert problem.startswith(f"{adapter}/adapter_config.json: {message}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, ": holds no adapter_config.json; give the folder that peft's save_pretrained wrote"),
        ('{"peft_type": ', "/adapter_config.json:1: not valid JSON"),
        ("[]", "/adapter_config.json: found a list [], expected a mapping of keys to values"),
    ],
)
def test_a_broken_config(content: str | None, message: str, adapter: Path) -> None:
    path = adapter / "adapter_config.json"
    path.unlink()
    if content is not None:
        path.write_text(content)
    (problem,) = refuse(lambda: from_peft(adapter, tiny.backbone()))
    assert problem.startswith(f"{adapter}{message}")


def test_tensors_that_are_none(adapter: Path) -> None:
    path = adapter / "adapter_model.safetensors"
    assert with_tensors(adapter, {"x": torch.zeros(1)}) == [
        f"{path}: holds no prompt_embeddings; give a file with a prompt"
    ]
    assert with_tensors(
        adapter, {"prompt_embeddings": torch.zeros(3, 96, dtype=torch.float64)}
    ) == [
        f"{path}: prompt_embeddings is torch.float64, which float32 cannot hold; save it as float32"
    ]
    path.write_bytes(path.read_bytes()[:50])
    assert refuse(lambda: from_peft(adapter, tiny.backbone()))[0].startswith(
        f"{path}: not a safetensors file ("
    )
    path.unlink()
    assert refuse(lambda: from_peft(adapter, tiny.backbone()))[0].startswith(
        f"{path}: cannot be read: "
    )


def test_a_pickle_is_refused_with_a_command_that_converts_it(adapter: Path) -> None:
    made, path = tiny.backbone(), adapter / "adapter_model.safetensors"
    tensors, expected = load_file(path), from_peft(adapter, made)
    torch.save(tensors, adapter / "adapter_model.bin")
    assert torch.equal(from_peft(adapter, made).materialize(), expected.materialize()), (
        "not read where there is the other"
    )
    path.unlink()
    (problem,) = refuse(lambda: from_peft(adapter, made))
    assert (
        "'prompt_embeddings' in n"
        in converts(problem, adapter / "adapter_model.bin", "adapter_model.safetensors")[2]
    )


def converts(problem: str, pickled: Path, name: str) -> list[str]:
    """The words of the command in a message, which has a line of its own."""
    first, command, last = problem.splitlines()
    assert first == (
        f"{pickled}: is a pickle, which can run code when it is loaded; go to the environment that made it, "
        f"make {name} with"
    )
    assert last == "and give that"
    assert re.match(r"python -c \"import torch, ", command)
    return shlex.split(command)


# verify


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, DeepPrompt, Backbone, Path, Tensor, Tensor]:
    made = tiny.backbone()
    prompt = deep_prompt(made, COUNT)
    to_peft(tmp_path / "a", prompt, made, "x")
    return tmp_path / "a", prompt, made, saved_of(tmp_path / "model", "bert"), *texts(made, [9, 4])


Exported = tuple[Path, DeepPrompt, Backbone, Path, Tensor, Tensor]


@pytest.mark.parametrize("number", [5.0, float("nan")])
def test_verify_finds_another_number(number: float, exported: Exported) -> None:
    path = exported[0] / "adapter_model.safetensors"
    tensors = load_file(path)
    tensors["prompt_embeddings"][1, 70] = number
    save_file(tensors, path)
    (problem,) = refuse(lambda: verify(*exported))
    assert problem.startswith(f"{exported[0]}: peft's hidden states differ from ours by ")
    assert problem.endswith(
        f"export it again, and check that {exported[3]} is the backbone it was made for"
    )


def test_verify_finds_a_damaged_file(exported: Exported) -> None:
    path = exported[0] / "adapter_model.safetensors"
    path.rename(path.with_suffix(".bin"))  # peft would open it
    assert "is a pickle" in refuse(lambda: verify(*exported))[0]
    path.write_bytes(b"damaged")
    assert "not a safetensors file" in refuse(lambda: verify(*exported))[0]


def test_verify_finds_another_backbone(exported: Exported, tmp_path: Path) -> None:
    folder, prompt, made, _, *inputs = exported
    tiny.model(seed=5, attention="sdpa").save_pretrained(tmp_path / "other")
    assert (
        "hidden states differ"
        in refuse(lambda: verify(folder, prompt, made, tmp_path / "other", *inputs))[0]
    )
    (problem,) = refuse(lambda: verify(folder, prompt, made, tmp_path / "none", *inputs))
    assert problem.startswith(f"{folder}: peft cannot run it on {tmp_path}/none: ")


def test_verify_says_how_peft_fails(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: Any, **kwargs: Any) -> None:
        raise ValueError("no cache\nat all")

    monkeypatch.setattr(peft.PeftModelForFeatureExtraction, "forward", fail)
    (problem,) = refuse(lambda: verify(*exported))
    assert (
        problem
        == f"{exported[0]}: peft cannot run it on {exported[3]}: no cache; export it again, onto its own backbone"
    )


def test_verify_needs_peft_and_the_rest_does_not(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    folder, prompt, made, *_ = exported
    assert refuse(lambda: verify(*exported)) == [
        "peft is not installed, and only it can verify an export; pip install 'deep-prompt[peft]'"
    ]
    to_peft(folder, prompt, made, "x")
    from_peft(folder, made)


def test_verify_is_silent(exported: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    verify(*exported)
    assert capfd.readouterr() == ("", "")


# P-tuning v2


def checkpoint(path: Path, prefix: str = "", hidden: int = 0, width: int = 96) -> dict[str, Tensor]:
    """Save what a model of P-tuning v2 has, and return its prefix encoder."""
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
def test_from_ptuning_v2(hidden: int, prefix: str, tmp_path: Path) -> None:
    """Against their prefix encoder and their view, permute and split, by hand."""
    made = tiny.backbone("roberta")
    tensors = checkpoint(tmp_path / "model.safetensors", prefix, hidden)
    prompt = from_ptuning_v2(tmp_path / "model.safetensors", made)
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


def test_a_prompt_of_ptuning_v2_does_the_same_under_peft(tmp_path: Path) -> None:
    """Its models and peft's handed past keys and values to the same models."""
    made, folder = tiny.backbone("roberta"), saved_of(tmp_path / "model", "roberta")
    checkpoint(tmp_path / "model.safetensors", hidden=5)
    prompt = from_ptuning_v2(tmp_path / "model.safetensors", made)
    to_peft(tmp_path / "a", prompt, made, "x")
    assert verify(tmp_path / "a", prompt, made, folder, *texts(made, [9, 4])) < 1e-6


def test_relative_positions_are_not_shifted(tmp_path: Path) -> None:
    checkpoint(tmp_path / "model.safetensors")
    assert (
        from_ptuning_v2(tmp_path / "model.safetensors", tiny.backbone("deberta-v2")).position_offset
        == 0
    )
    assert (
        from_ptuning_v2(tmp_path / "model.safetensors", tiny.backbone("deberta")).position_offset
        == COUNT
    )


def test_families_that_ptuning_v2_does_not_have(tmp_path: Path) -> None:
    checkpoint(tmp_path / "model.safetensors", width=48)
    (problem,) = refuse(
        lambda: from_ptuning_v2(tmp_path / "model.safetensors", tiny.backbone("llama"))
    )
    assert problem.startswith(f"{tmp_path}/model.safetensors: P-tuning v2 has no 'llama' models")


def test_a_checkpoint_of_another_backbone(tmp_path: Path) -> None:
    path, made = tmp_path / "model.safetensors", tiny.backbone()
    checkpoint(path, width=64)
    end = "use the backbone it was made for"
    assert refuse(lambda: from_ptuning_v2(path, made)) == [
        f"{path}: the shape of embedding.weight is (3, 64), the backbone takes (3, 96); {end}"
    ]
    tensors = checkpoint(path, hidden=5, width=64)
    tensors["embedding.weight"] = torch.zeros(3, 8)
    save_file({f"prefix_encoder.{name}": tensor for name, tensor in tensors.items()}, path)
    assert refuse(lambda: from_ptuning_v2(path, made)) == [
        f"{path}: the shape of {name} is {found}, the backbone takes {wanted}; {end}"
        for name, found, wanted in (
            ("embedding.weight", (3, 8), (3, 16)),
            ("trans.2.weight", (64, 5), (96, 5)),
            ("trans.2.bias", (64,), (96,)),
        )
    ]
    save_file({"prefix_encoder.embedding.weight": torch.tensor(1.0)}, path)
    assert refuse(lambda: from_ptuning_v2(path, made)) == [
        f"{path}: the shape of embedding.weight is (), the backbone takes (0, 96); {end}"
    ]


@pytest.mark.parametrize(
    ("names", "held"),
    [
        (["bert.x"], "nothing"),
        (["prefix_encoder.weight"], "prefix_encoder.weight"),  # their soft prompt
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
def test_no_checkpoint_of_ptuning_v2(names: list[str], held: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({name: torch.zeros(3, 96) for name in names}, path)
    assert refuse(lambda: from_ptuning_v2(path, tiny.backbone())) == [
        f"{path}: of a prefix_encoder it holds {held}, expected embedding.weight alone or embedding.weight, trans.0.bias, "
        "trans.0.weight, trans.2.bias, trans.2.weight; give a model of P-tuning v2"
    ]


def test_a_checkpoint_of_the_trainer_is_a_pickle(tmp_path: Path) -> None:
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
    (problem,) = refuse(lambda: from_ptuning_v2(tmp_path / "pytorch_model.bin", tiny.backbone()))
    command = converts(problem, tmp_path / "pytorch_model.bin", "model.safetensors")
    subprocess.run([sys.executable, *command[1:]], check=True)
    assert torch.equal(
        from_ptuning_v2(tmp_path / "model.safetensors", tiny.backbone()).materialize(),
        expected.materialize(),
    )


def test_a_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_text("version https://git-lfs")
    (problem,) = refuse(lambda: from_ptuning_v2(tmp_path / "model.safetensors", tiny.backbone()))
    assert problem.startswith(f"{tmp_path}/model.safetensors: not a safetensors file (")
    for path in (tmp_path, tmp_path / "none.safetensors", Path()):
        (problem,) = refuse(lambda path=path: from_ptuning_v2(path, tiny.backbone()))
        assert problem.startswith(f"{path}: cannot be read: ")
        assert problem.endswith("; give the path of a readable file")
