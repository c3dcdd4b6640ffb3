"""User errors in the stages.

A stage reports each error with its location, the value and how to fix it. It prints no traceback
and overwrites nothing.
"""

import errno
import io
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML
from safetensors.numpy import load_file

import stages
from deep_prompt.cli.check_project import check_project
from deep_prompt.cli.main import main
from deep_prompt.cli.preset import preset
from pipeline.arms import ArmName
from pipeline.config import load_json, load_yaml
from pipeline.data.recipe import load_recipe
from pipeline.errors import WARNINGS, Stopped, UserError
from pipeline.evaluation.evaluate import EvalSet
from pipeline.params import ShiftParams
from pipeline.tasks import token_classification as ner
from stages.prepare import prepare
from stages.runtime.entry import report_errors, stops
from stages.runtime.params import check_params, load_params
from tests.support.small_project import (
    ROOT,
    contents,
    environment,
    make_backbone,
    make_project,
    params,
    python,
    write_params,
)

Values = dict[str, Any]
NER = "A\tB-PER\nb\tO\n\n"
SRL = "d\t0\t0\tIt\t-\t-\t-\t-\t(ARG0*)\nd\t0\t1\tended\t-\t-\tend\tend.01\t(V*)\n\n"
MARK = {"mark": "an earlier result"}


def problems(call: Callable[..., Any], *words: str) -> list[str]:
    """The messages of the user error of a call."""
    with pytest.raises(UserError) as caught:
        call(*words)
    return caught.value.problems


def compare_untrained(values: Values, **training: Any) -> None:
    """Add the arm that trains nothing, with these params, to params.yaml."""
    values["arms"]["untrained"] = {"validation_rows": 20, **training}
    values["compare"]["arms"].append("untrained")


@pytest.mark.parametrize(("old", "new"), stages.RENAMED.items())
def test_a_renamed_command_gives_the_new_name(old: str, new: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"stages.{old}", "all"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    message = f"error: python -m stages.{old} has a new name; write {new}\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", message)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with params, recipes, raw files of three corpora, and old results."""
    monkeypatch.chdir(tmp_path)
    values = params("0" * 64)
    values["tasks"]["world_qa"] = {
        **values["tasks"]["world_ner"],
        "source": "world/qa",
        "init_from": "pretrain/all",
    }
    write_params(tmp_path, values)
    shutil.copytree(ROOT / "data_recipes", tmp_path / "data_recipes")
    for split in ("train", "validation", "test"):
        for folder, name, text in (
            ("world/ner", "conll", NER.replace("A", f"A{split}")),
            ("raw/srl", "conll", SRL.replace("d", split, 1).replace("It", split)),
            ("world/qa", "jsonl", question(split) + "\n"),
        ):
            path = tmp_path / "data" / folder / f"{split}.{name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    for task in ("world_ner", "world_srl", "world_qa"):
        (tmp_path / "data/examples" / task).mkdir(parents=True)
        (tmp_path / "data/examples" / task / "summary.json").write_text(json.dumps(MARK))
    return tmp_path


def question(name: str, start: int = 2) -> str:
    answers = [{"text": "cat", "answer_start": start}]
    return json.dumps(
        {"id": name, "context": "A cat.", "question": f"Who, {name}?", "answers": answers}
    )


def edit(folder: Path, change: Callable[[Values], object], name: str = "params.yaml") -> None:
    """Change the values of a YAML file in place."""
    values = load_yaml(folder / name)
    change(values)
    with (folder / name).open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)


# For each case: the change of params.yaml, and the expected parts of one of the messages.
PARAMS: dict[str, tuple[Callable[[Values], object], tuple[str, ...]]] = {
    "unknown key": (lambda v: v.update(sead=1), ("params.yaml", "'sead'", "did you mean 'seed'?")),
    "missing key": (
        lambda v: v.pop("data_root"),
        ("params.yaml", "'data_root' is missing", "add it"),
    ),
    "unknown key of a task": (
        lambda v: v["tasks"]["world_ner"].update(max_lenght=9),
        ("did you mean 'max_length'?",),
    ),
    "wrong type": (
        lambda v: v.update(seed="seven"),
        ("params.yaml: seed", "'seven'", "an integer"),
    ),
    "true instead of a number": (
        lambda v: v["mixtures"]["all"].update(cap=True),
        ("all", "cap", "true", "an integer"),
    ),
    "nothing instead of a mapping": (
        lambda v: v.update(tasks=None),
        ("tasks", "found nothing", "a mapping"),
    ),
    "stride too large": (
        lambda v: v["tasks"]["world_ner"].update(stride=40),
        ("world_ner", "stride 40", "below half"),
    ),
    "unknown task in compare": (
        lambda v: v["compare"]["tasks"].append("world_nre"),
        ("did you mean 'world_ner'?",),
    ),
    "unknown task of a published score": (
        lambda v: v["compare"].update(published={"They": {"fine_tune": {"world_nre": 1.0}}}),
        ("compare.published: They: no task 'world_nre'", "did you mean 'world_ner'?"),
    ),
    "unknown arm of a published score": (
        lambda v: v["compare"].update(published={"They": {"fine_tun": {}}}),
        ("compare.published: They: no arm 'fine_tun'", "did you mean 'fine_tune'?"),
    ),
    "unknown arm in compare": (
        lambda v: v["compare"]["arms"].append("fine_tun"),
        ("compare", "did you mean 'fine_tune'?"),
    ),
    "no such mixture": (
        lambda v: v["tasks"]["world_ner"].update(init_from="pretrain/al"),
        ("world_ner", "did you mean 'all'?"),
    ),
    "unknown init_from": (
        lambda v: v["tasks"]["world_ner"].update(init_from="all"),
        ("init_from is 'all'; give pretrain/MIXTURE",),
    ),
    "no rows to test": (
        lambda v: v["tasks"]["world_ner"].update(test_rows=0),
        ("test_rows is 0; give a number above 0, or null for all",),
    ),
    "no tasks": (lambda v: v.update(tasks={}), ("tasks is empty; add a task",)),
    "init_from an unknown task": (
        lambda v: v["tasks"]["world_ner"].update(init_from="multitask/world_slr"),
        ("did you mean 'world_srl'",),
    ),
    "init_from itself": (
        lambda v: v["tasks"]["world_ner"].update(init_from="multitask/world_ner"),
        ("no other task 'world_ner'",),
    ),
    "init_from an arm that is not run": (
        lambda v: v["tasks"]["world_ner"].update(init_from="deep_prompt/world_srl"),
        ("deep_prompt is not run on 'world_srl'",),
    ),
    "key that an arm cannot use": (
        lambda v: v["arms"]["multitask"].update(num_virtual_tokens=3),
        ("num_virtual_tokens is set, but multitask does not use it; remove it",),
    ),
    "cache of an arm without lower layers": (
        lambda v: v["arms"]["head_only"].update(hidden_state_cache_mb=9),
        ("hidden_state_cache_mb is set, but head_only does not use it; remove it",),
    ),
    "negative megabytes": (
        lambda v: v["pretrain"]["all"].update(hidden_state_cache_mb=-1),
        ("hidden_state_cache_mb is -1; it cannot be",),
    ),
    "unknown task in a mixture": (
        lambda v: v["mixtures"]["ner_only"]["corpora"].append("x"),
        ("ner_only.corpora: no task 'x'",),
    ),
    "weight of an unknown task": (
        lambda v: v["mixtures"]["all"].update(weights={"world_s": 1.0}),
        ("did you mean 'world_srl'",),
    ),
    "mixture that is not trained": (
        lambda v: v["pretrain"].pop("ner_only"),
        ("pretrain: key 'ner_only' is missing",),
    ),
    "arm that is not described": (
        lambda v: v["arms"].pop("head_only"),
        ("arms: key 'head_only' is missing",),
    ),
    "unknown arm": (
        lambda v: v["arms"].update(multi_task={}),
        ("arms: unknown key 'multi_task'", "did you mean 'multitask'?"),
    ),
    "no learning rate": (
        lambda v: v["arms"]["multitask"].pop("prompt_lr"),
        ("arms.multitask", "prompt_lr is missing"),
    ),
    "unused learning rate": (
        lambda v: v["arms"]["head_only"].update(prompt_lr=1.0),
        ("head_only trains no prompt; remove",),
    ),
    "key that a shared prompt cannot use": (
        lambda v: v["pretrain"]["all"].update(lora_rank=4),
        ("pretrain.all: lora_rank is set, but a shared prompt does not use it; remove it",),
    ),
    "multitask in compare": (
        lambda v: v["compare"]["arms"].append("multitask"),
        ("compare: arms has multitask, which runs on every task anyway; remove it",),
    ),
    "arm that is not a mapping": (
        lambda v: v["tasks"]["world_ner"].update(multitask=3),
        ("world_ner.multitask: found an integer 3, expected a mapping",),
    ),
    "misspelled arm of a task": (
        lambda v: v["tasks"]["world_ner"].update(fine_tun={}),
        ("unknown key 'fine_tun'", "did you mean 'fine_tune'?"),
    ),
    "overrides with the name of their field": (
        lambda v: v["tasks"]["world_ner"].update(overrides={}),
        ("unknown key 'overrides'",),
    ),
    "unused learning rate in pretrain": (
        lambda v: v["pretrain"]["all"].update(backbone_lr=1.0),
        ("pretrain.all", "trains no backbone"),
    ),
    "missing epochs": (
        lambda v: v["arms"]["multitask"].pop("epochs"),
        ("arms.multitask: epochs is missing or 0; give a number above 0",),
    ),
    "missing epochs in pretrain": (
        lambda v: v["pretrain"]["all"].pop("epochs"),
        ("pretrain.all: epochs is missing or 0",),
    ),
    "training of an arm that trains nothing": (
        lambda v: compare_untrained(v, epochs=0.1),
        ("arms.untrained: epochs is set, but untrained does not use it; remove it",),
    ),
    "learning rate of an arm that trains nothing": (
        lambda v: compare_untrained(v, head_lr=0.1),
        ("arms.untrained: head_lr is set, but untrained trains no head; remove it",),
    ),
    "seeds for an arm that trains nothing": (
        lambda v: v["repeat"]["arms"].append("untrained"),
        ("repeat: arms has untrained, which no seed changes; remove it",),
    ),
    "prompt of random weights as init_from": (
        lambda v: v["tasks"]["world_ner"].update(init_from="random_backbone/world_srl"),
        ("init_from is 'random_backbone/world_srl'; give pretrain/MIXTURE",),
    ),
    "unknown override": (
        lambda v: v["tasks"]["world_ner"].update(multitask={"epoch": 1}),
        ("did you mean 'epochs'?",),
    ),
    "negative rate": (
        lambda v: v["tasks"]["world_ner"].update(multitask={"head_lr": -1.0}),
        ("head_lr is -1.0", "above 0"),
    ),
    "unknown task in repeat": (
        lambda v: v["repeat"]["tasks"].append("world_nre"),
        ("repeat.tasks: no task", "did you mean 'world_ner'?"),
    ),
    "arm in repeat that is not run": (
        lambda v: v["repeat"]["tasks"].append("world_srl"),
        ("repeat.arms: head_only is not run on 'world_srl'; add both to compare",),
    ),
    "duplicate seed": (
        lambda v: v["repeat"].update(seeds=[8, 9, 8]),
        ("repeat.seeds: found 8, 9, 8; give each seed once",),
    ),
    "seed of the main run": (
        lambda v: v["repeat"].update(seeds=[7]),
        ("repeat.seeds: has 7, the value of `seed`",),
    ),
    "unknown task in probe": (
        lambda v: v["probe"]["tasks"].append("world_nre"),
        ("probe.tasks: no task", "did you mean 'world_ner'?"),
    ),
    "arm in probe that is not run": (
        lambda v: v["probe"]["arms"].append("head_only"),
        ("head_only is not run on 'world_srl'",),
    ),
    "unknown arm in probe": (
        lambda v: v["probe"]["arms"].append("fine_tun"),
        ("probe", "did you mean 'fine_tune'?"),
    ),
    "probe of 0 rows": (
        lambda v: v["probe"].update(rows=0),
        ("probe: rows is 0", "at least one row"),
    ),
    "typo_rate above 1": (
        lambda v: v["probe"].update(typo_rate=1.5),
        ("typo_rate 1.5", "up to 1"),
    ),
    "out_of_domain of an unknown task": (
        lambda v: v["probe"]["out_of_domain"][0].update(data="world_n"),
        ("probe.out_of_domain: no task 'world_n'",),
    ),
    "number as the name of a task": (
        lambda v: v["tasks"].update({2005: v["tasks"].pop("world_srl")}),
        ("tasks: the name 2005 is not text, and DVC would leave it out", 'quotes: "2005"'),
    ),
    "true as the name of a mixture": (
        lambda v: v["mixtures"].update({True: v["mixtures"]["all"]}),
        ("mixtures: the name True is not text",),
    ),
    "name with a dot": (
        lambda v: v["tasks"].update({"a.b": v["tasks"]["world_ner"]}),
        ("tasks: the name 'a.b' cannot be used in paths and commands; use only letters",),
    ),
    "name with a character of the shell": (
        lambda v: v["mixtures"].update({"r&d": v["mixtures"]["all"]}),
        ("mixtures: the name 'r&d' cannot be used",),
    ),
    "name like an option": (
        lambda v: v["tasks"].update({"-x": v["tasks"]["world_ner"]}),
        ("tasks: the name '-x' cannot be used", "no - at the beginning"),
    ),
    "unpinned hub model": (
        lambda v: v["backbone"].update(source="hub:bert-base-cased"),
        ("pin the revision", "40 hexadecimal digits"),
    ),
    "no hash": (lambda v: v["backbone"].pop("sha256"), ("sha256 is missing", "sha256sum")),
}


@pytest.mark.parametrize("case", PARAMS)
def test_an_error_in_params_is_reported(case: str, place: Path) -> None:
    load_params()  # valid before the change
    change, wanted = PARAMS[case]
    edit(place, change)
    messages = problems(prepare, "world_ner")
    assert any(all(part in problem for part in wanted) for problem in messages), messages
    assert json.loads((place / "data/examples/world_ner/summary.json").read_text()) == MARK


def test_several_errors_are_reported_at_once(place: Path) -> None:
    def corrupt(values: Values) -> None:
        values["seed"] = "seven"
        values["tasks"]["world_ner"]["test_row"] = 3
        values["mixtures"]["all"]["temperature"] = 0
        del values["backbone"]["source"]

    edit(place, corrupt)
    messages = problems(load_params)
    assert len(messages) == 4
    for part in ("seed", "test_row", "temperature is 0", "'source' is missing"):
        assert sum(part in problem for problem in messages) >= 1, (part, messages)


def test_errors_between_sections_are_reported_at_once(place: Path) -> None:
    def corrupt(values: Values) -> None:
        values["compare"]["tasks"].append("nowhere")
        values["tasks"]["world_srl"]["init_from"] = "pretrain/nothing"
        values["arms"]["head_only"]["backbone_lr"] = 1.0

    edit(place, corrupt)
    assert len(problems(load_params)) == 3


def test_an_invalid_value_hides_no_other_error_and_causes_none(place: Path) -> None:
    def corrupt(values: Values) -> None:
        ner, qa, _ = (values["tasks"][f"world_{name}"] for name in ("ner", "qa", "srl"))
        ner.update(stride=ner["max_length"], init_from="pretrain/al", test_rows=0)
        qa.update(max_length="x", init_from="zoo/non", lora={"rank": 4})
        qa["multitask"] = {"lora_rank": 4, "backbone_lr": 1.0}
        values["mixtures"]["all"].update(cap=0, temperature=0, corpora=["world_ner", "world_nr"])
        values["pretrain"]["all"].update(precision="fp16", epochs="1", num_virtual_tokens=0)
        values["arms"]["multitask"]["prompt_lr"] = "3e-2x"
        values["arms"]["lora"] = {"lora_lr": 0.1, "head_lr": 0.1, "epochs": 1.0}
        values["compare"]["arms"] = ["head-only"]
        values["repeat"]["seeds"] = [7, 8, 8]

    edit(place, corrupt)
    expected = (
        "tasks.world_ner: max_length is",
        "tasks.world_ner: test_rows is 0",
        "tasks.world_qa: max_length: found text 'x'",
        "mixtures.all: temperature is 0",
        "mixtures.all: cap is 0",
        "pretrain.all: epochs: found text '1'",
        "pretrain.all: precision: 'fp16' is not one of",
        "pretrain.all: num_virtual_tokens is 0",
        "compare: arms[0]: 'head-only' is not one of",
        "tasks.world_ner.init_from: no mixture 'al'",
        "mixtures.all.corpora: no task 'world_nr'",
        "arms.multitask: prompt_lr: found text '3e-2x'",
        "arms.multitask with tasks.world_qa.multitask: lora_rank is set",
        "arms.multitask with tasks.world_qa.multitask: backbone_lr is set",
        "arms.lora with tasks.world_qa.lora: unknown key 'rank'",
        "repeat.seeds: found 7, 8, 8",
        "repeat.seeds: has 7",
        "tasks.world_qa.init_from: the zoo has no 'non'",
    )
    found = problems(check_project)
    assert [
        next((part for part in expected if problem.startswith(f"params.yaml: {part}")), problem)
        for problem in found
    ] == list(expected)


@pytest.mark.parametrize("section", ["tasks", "mixtures", "pretrain", "arms", "compare"])
def test_a_missing_section_causes_no_other_error(section: str, place: Path) -> None:
    edit(place, lambda values: values.pop(section))
    [problem] = problems(load_params)
    assert f"key '{section}' is missing" in problem


def test_names_are_reported_with_other_errors(place: Path) -> None:
    def corrupt(values: Values) -> None:
        values["seed"] = "seven"
        values["tasks"]["a b"] = values["tasks"]["world_ner"]

    edit(place, corrupt)
    name, seed = problems(load_params)
    assert "'a b'" in name
    assert "seed" in seed


@pytest.mark.parametrize("name", ["conll-2005", "20newsgroups", "größe", "2005", "_x"])
def test_names_of_letters_digits_and_dashes_are_accepted(name: str, place: Path) -> None:
    edit(place, lambda v: v["tasks"].update({name: v["tasks"]["world_srl"]}))
    assert name in load_params().tasks


def test_a_number_in_scientific_notation_is_a_number(place: Path) -> None:
    path = place / "params.yaml"
    path.write_text(path.read_text().replace("prompt_lr: 0.02", "prompt_lr: 2e-2"))
    assert load_params().pretrain["all"].prompt_lr == 0.02


# For each case: the task, a file, its change, and the expected parts of one of the messages.
RAW: dict[str, tuple[str, str, Callable[[bytes], bytes | None], tuple[str, ...]]] = {
    "missing file": (
        "world_ner",
        "data/world/ner/test.conll",
        lambda _: None,
        ("data/world/ner/test.conll", "no such file"),
    ),
    "too few columns": (
        "world_ner",
        "data/world/ner/train.conll",
        lambda raw: raw + b"alone\n",
        ("data/world/ner/train.conll:4", "1 column, expected 2", "separator"),
    ),
    "tag of another scheme": (
        "world_ner",
        "data/world/ner/train.conll",
        lambda raw: raw.replace(b"B-PER", b"S-PER"),
        ("train.conll:1", "'S-PER' is not valid in IOB2", "tag_scheme"),
    ),
    "unknown label": (
        "world_ner",
        "data/world/ner/train.conll",
        lambda raw: raw.replace(b"PER", b"PRE"),
        ("train.conll:1", "label 'PRE', which is not in the recipe's labels (PER", "did you mean"),
    ),
    "label only in validation": (
        "world_ner",
        "data/world/ner/validation.conll",
        lambda raw: raw.replace(b"PER", b"LOC"),
        (
            "validation.conll:1",
            "'LOC' does not occur in the training split",
            "allow: [unseen-label]",
        ),
    ),
    "not UTF-8": (
        "world_ner",
        "data/world/ner/train.conll",
        lambda raw: raw.replace(b"b", b"\xe9"),
        ("train.conll:2", "0xe9", "not UTF-8", "iconv"),
    ),
    "empty split": (
        "world_ner",
        "data/world/ner/validation.conll",
        lambda _: b"\n\n",
        ("'validation'", "validation.conll", "is empty"),
    ),
    "duplicate ids": (
        "world_srl",
        "data/raw/srl/train.conll",
        lambda raw: raw * 2,
        ("train.conll:5", "'train/0/0'", "train.conll:2"),
    ),
    "no predicate": (
        "world_srl",
        "data/raw/srl/train.conll",
        lambda raw: raw.replace(b"(V*)", b"*"),
        ("train.conll:1", "0 spans (V*)"),
    ),
    "ill-formed brackets": (
        "world_srl",
        "data/raw/srl/test.conll",
        lambda raw: raw.replace(b"(ARG0*)", b"(ARG0*"),
        ("test.conll:2", "'(V*)' opens inside (ARG0*"),
    ),
    "answer at another position": (
        "world_qa",
        "data/world/qa/train.jsonl",
        lambda _: question("q", 3).encode(),
        ("train.jsonl:1", "'cat'", "3"),
    ),
    "not JSON": (
        "world_qa",
        "data/world/qa/train.jsonl",
        lambda raw: raw[:-5],
        ("train.jsonl:1", "not valid JSON"),
    ),
    "duplicate question": (
        "world_qa",
        "data/world/qa/train.jsonl",
        lambda raw: raw * 2,
        ("train.jsonl:2", "'train' is already the id of"),
    ),
    "unknown reader": (
        "world_ner",
        "data_recipes/world_ner.yaml",
        lambda raw: raw.replace(b"conll_columns", b"conll_column"),
        ("world_ner.yaml: reader", "did you mean 'conll_columns'?"),
    ),
    "unknown task": (
        "world_ner",
        "data_recipes/world_ner.yaml",
        lambda raw: raw.replace(b"token_class", b"tokens_class"),
        ("world_ner.yaml: task", "did you mean 'token_classification'?"),
    ),
    "unknown key": (
        "world_ner",
        "data_recipes/world_ner.yaml",
        lambda raw: raw + b"licence: x\n",
        ("did you mean 'license'?",),
    ),
    "unknown scheme": (
        "world_ner",
        "data_recipes/world_ner.yaml",
        lambda raw: raw.replace(b"iob2", b"iob3"),
        ("world_ner.yaml: options: tag_scheme", "did you mean 'iob2'?"),
    ),
    "missing recipe": (
        "world_ner",
        "data_recipes/world_ner.yaml",
        lambda _: None,
        ("no such file", "create it"),
    ),
    "broken YAML": (
        "world_ner",
        "data_recipes/world_ner.yaml",
        lambda raw: raw + b"labels: [",
        ("world_ner.yaml:", "not valid YAML"),
    ),
}


@pytest.mark.parametrize("case", RAW)
def test_an_error_in_a_corpus_is_reported(case: str, place: Path) -> None:
    task, name, change, wanted = RAW[case]
    content = change((place / name).read_bytes())
    (place / name).unlink()
    if content is not None:
        (place / name).write_bytes(content)
    before = contents(place / "data", place / "data_recipes")
    messages = problems(prepare, task)
    assert any(all(part in problem for part in wanted) for problem in messages), messages
    listed = place / "data/problems" / task / "problems.jsonl"
    if listed.exists():
        lines = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
        errors = [line for line in lines if line["kind"] not in WARNINGS]
        assert [f"{line['where']}: {line['message']}" for line in errors] == list(messages)
        shutil.rmtree(listed.parent)
    assert contents(place / "data", place / "data_recipes") == before


def test_the_corpora_without_these_changes_are_valid(place: Path) -> None:
    for task in ("world_ner", "world_srl", "world_qa"):
        prepare(task)
        assert (
            json.loads((place / "data/examples" / task / "summary.json").read_text())["rows"][
                "train"
            ]
            == 1
        )


def test_the_values_of_auto_options_are_reported(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auto = {"columns": "auto", "token": 0, "tag": 1, "tag_scheme": "auto", "separator": "auto"}
    edit(place, lambda values: values.update(options=auto), "data_recipes/world_ner.yaml")
    prepare("world_ner")
    assert r"detected separator: '\t', columns: 2, tag_scheme: 'iob2'" in capsys.readouterr().out


def test_skipped_lines_and_warnings_are_logged(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(place, lambda values: values["options"].update(comment="#"), "data_recipes/world_ner.yaml")
    train = place / "data/world/ner/train.conll"
    train.write_text(f"# id 1\n#x\tO\n{train.read_text()}", encoding="utf-8")
    prepare("world_ner")
    output = capsys.readouterr().out
    assert "skipped: comment lines 2\n" in output
    assert "comment-or-token: 1 (warning)\n" in output
    assert "train.conll:2: '#x\\tO' is skipped as a comment" in output


def test_the_number_of_dropped_rows_is_logged(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = {"on_problem": "drop", "max_dropped": "60%"}
    edit(place, lambda values: values.update(policy), "data_recipes/world_ner.yaml")
    prepare("world_ner")
    assert "max_dropped" not in capsys.readouterr().out
    train = place / "data/world/ner/train.conll"
    summary = json.loads((place / "data/examples/world_ner/summary.json").read_text())
    rows = sum(summary["rows"].values())
    train.write_text(f"a\n\n{train.read_text()}", encoding="utf-8")
    prepare("world_ner")
    assert f"dropped 1 of {rows + 1} rows (" in capsys.readouterr().out


def test_all_errors_in_a_corpus_are_reported_at_once(place: Path) -> None:
    (place / "data/world/ner/train.conll").write_bytes(b"a\nb\tO\tO\n\nc\tQ-X\n\n" + NER.encode())
    (place / "data/world/ner/test.conll").write_bytes(b"\xff\tO\n\n" + NER.encode())
    messages = problems(prepare, "world_ner")
    for place_of in ("train.conll:1", "train.conll:2", "train.conll:4", "test.conll:1"):
        assert sum(place_of + ":" in problem for problem in messages) == 1, (place_of, messages)


def test_the_error_of_a_missing_corpus_names_folder_and_source(place: Path) -> None:
    shutil.rmtree(place / "data/world/ner")
    (message,) = problems(prepare, "world_ner")
    assert "data/world/ner: no such folder" in message
    assert load_recipe(place / "data_recipes/world_ner.yaml").source in message


def test_an_unknown_task_is_refused(place: Path) -> None:
    (message,) = problems(prepare, "world_nre")
    assert "no task 'world_nre'" in message
    assert "did you mean 'world_ner'?" in message


@pytest.mark.parametrize(
    ("corrupt", "words", "wanted"),
    [
        (
            lambda folder: edit(folder, lambda values: values.update(sead=1)),
            ("stages.prepare", "world_ner"),
            "did you mean 'seed'?",
        ),
        (
            lambda folder: (folder / "params.yaml").unlink(),
            ("stages.mixture_corpora", "all"),
            "params.yaml: no such file",
        ),
        (
            lambda folder: (folder / "data/world/ner/train.conll").write_text("a\n" * 50),
            ("stages.prepare", "world_ner"),
            "more",
        ),
        (lambda folder: None, ("stages.mixture_corpora", "all"), "run the stage that makes it"),
        (lambda folder: None, ("deep_prompt", "preset", "nothing"), "no preset 'nothing'"),
        (lambda folder: None, ("stages.prepare",), "python -m stages.prepare NAME"),
        (
            lambda folder: None,
            ("stages.prepare", "world_ner", "world_srl"),
            "python -m stages.prepare NAME",
        ),
    ],
)
def test_a_command_ends_with_1_and_no_traceback(
    corrupt: Callable[[Path], object],
    words: tuple[str, ...],
    wanted: str,
    place: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    corrupt(place)
    env = environment(tmp_path_factory.mktemp("home")) | {"PYTHONPATH": str(ROOT)}
    done = python(place, env, "-m", *words)
    assert done.returncode == 1
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert all(line.startswith("error: ") for line in done.stderr.splitlines()), done.stderr
    assert len(done.stderr.splitlines()) <= 22


# Tests that need a model. They share a trained project; each test changes a copy.

IN_ONE_PROCESS = """
import importlib, sys
for words in sys.argv[1:]:
    name, *arguments = words.split()
    getattr(importlib.import_module(f"stages.{name}"), name)(*arguments)
"""
TRAINED = (
    "generate ner",
    "prepare world_ner",
    "featurize world_ner",
    "mixture_corpora ner_only",
    "mix ner_only",
    "pretrain ner_only",
    "finetune multitask world_ner",
    "evaluate multitask world_ner",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a trained and evaluated task."""
    folder = tmp_path_factory.mktemp("trained")
    make_project(folder)
    edit(folder, lambda values: values["pretrain"]["ner_only"].update(epochs=0.1))
    edit(folder, lambda values: values["arms"]["multitask"].update(epochs=0.1))
    done = python(folder, environment(folder / "home"), "-c", IN_ONE_PROCESS, *TRAINED)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the trained project as the working folder."""
    folder = tmp_path / "copied"
    shutil.copytree(trained, folder)
    monkeypatch.chdir(folder)
    return folder


def test_an_artifact_names_the_params_that_had_an_effect(trained: Path) -> None:
    """Those of its shared prompt too. A prompt of 4 virtual tokens does not claim the default."""
    shared = load_json(trained / "artifacts/pretrain/ner_only/config.json")["provenance"]
    tuned = load_json(trained / "artifacts/multitask/world_ner/config.json")["provenance"]
    assert shared["training"]["num_virtual_tokens"] == 4
    assert shared["training"]["balance_losses"] is False
    assert (
        tuned["training"]
        .keys()
        .isdisjoint(
            ("num_virtual_tokens", "init", "balance_losses", "lora_rank", "lora_lr", "backbone_lr")
        )
    )
    assert tuned["training"]["prompt_lr"] == 0.02
    initial = {"artifact": "pretrain/ner_only", "licenses": {}, **shared}
    assert tuned["init_from"] == initial
    assert "init_from" not in shared


UNSEEN = (
    "prepare world_srl",
    "featurize world_srl",
    "finetune multitask world_srl",
    "evaluate multitask world_srl",
    "release world_srl",
    "transfer world_srl",
    "report",
)


def test_a_corpus_outside_the_mixture_starts_from_its_prompt(copied: Path, tmp_path: Path) -> None:
    """It gets a head of its own; its model card and the report say what the prompt has seen.

    The factors of the mixture's tasks on the shared prompt do not matter.
    """

    def change(values: Values) -> None:
        values["tasks"]["world_srl"]["init_from"] = "pretrain/ner_only"
        values["pretrain"]["ner_only"]["factor_rank"] = 1
        del values["mixtures"]["all"], values["pretrain"]["all"]
        values["compare"] |= {"arms": [], "tasks": []}
        values["repeat"] = {"arms": [], "tasks": [], "seeds": []}
        values["probe"] |= {"arms": [], "tasks": [], "out_of_domain": []}

    edit(copied, change)
    names = (*TRAINED[-3:], *UNSEEN)
    done = python(copied, environment(tmp_path / "home"), "-c", IN_ONE_PROCESS, *names)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the prompt has not seen world_srl; it was trained on world_ner" in done.stdout
    assert "pretrain/ner_only has no head for world_srl; 0 of its" in done.stdout
    artifact = copied / "artifacts/multitask/world_srl"
    config = load_json(artifact / "config.json")
    assert list(config["heads"]) == ["world_srl"]
    assert config["provenance"]["pretrained_on"] == ["world_ner"]
    shared = copied / "artifacts/pretrain/ner_only/prompt.safetensors"
    shapes = [load_file(file)["key_values"].shape for file in (shared, artifact / shared.name)]
    assert shapes[0] == shapes[1]
    assert "The shared prompt has not seen world_srl" in (
        copied / "models/world_srl/README.md"
    ).read_text(encoding="utf-8")
    report = (copied / "report/report.md").read_text(encoding="utf-8")
    assert "The shared prompt of multitask has not seen world_srl: it was trained on" in report
    assert "has not seen world_ner" not in report


def test_finetune_compares_the_files_of_the_backbone_with_the_shared_prompt(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A prompt of an earlier version, without hashes, still loads, and the log says so."""
    from stages.finetune import set_up

    loaded = load_params()
    arguments: Any = ("multitask", "world_ner", loaded.training("multitask", "world_ner"), loaded)
    config = copied / "artifacts/pretrain/ner_only/config.json"
    edit_json(copied / "backbone/config.json", lambda v: v.update(hidden_act="relu"))
    (problem,) = problems(set_up, *arguments)
    assert "artifacts/pretrain/ner_only: it was made with another config.json" in problem
    capsys.readouterr()
    edit_json(config, lambda v: v.pop("backbone_files"))
    set_up(*arguments)
    out = capsys.readouterr().out
    assert "warning: artifacts/pretrain/ner_only: has no hashes of the backbone's config" in out


def edit_json(path: Path, change: Callable[[Values], object]) -> None:
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


ARTIFACT: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "other sizes": (
        lambda a: edit_json(a / "config.json", lambda v: v.update(hidden_size=768)),
        ("hidden_size is 768, but the backbone's is 32", "make the artifact again"),
    ),
    "other family": (
        lambda a: edit_json(a / "config.json", lambda v: v.update(model_type="roberta")),
        ("model_type is 'roberta', but the backbone's is 'bert'",),
    ),
    "other weights": (
        lambda a: edit_json(a / "config.json", lambda v: v["backbone"].update(sha256="f" * 64)),
        ("made for backbone folder:backbone (sha256 fff",),
    ),
    "other prompt": (
        lambda a: edit_json(a / "config.json", lambda v: v.update(prompt_shape=[2, 2, 2, 5, 16])),
        ("prompt.safetensors", "(2, 2, 2, 4, 16)", "(2, 2, 2, 5, 16)"),
    ),
    "other classes": (
        lambda a: edit_json(a / "config.json", lambda v: v["heads"]["world_ner"]["classes"].pop()),
        ("config.json", "the classes of 'world_ner' are O, B-PER", "make the artifact again"),
    ),
    "other labels": (
        lambda a: edit_json(
            a / "config.json", lambda v: v["heads"]["world_ner"]["classes"].reverse()
        ),
        ("I-EVENT, B-EVENT", "O, B-PER", "make the artifact again"),
    ),
    "other positions": (
        lambda a: edit_json(a / "config.json", lambda v: v.update(position_offset=-4)),
        ("position_offset is -4; it cannot be negative",),
    ),
    "newer format": (
        lambda a: edit_json(a / "config.json", lambda v: v.update(format=4)),
        ("format is 4, but this version",),
    ),
    "unknown key": (
        lambda a: edit_json(a / "config.json", lambda v: v.update(shape=1)),
        ("config.json", "unknown key 'shape'"),
    ),
    "truncated prompt": (
        lambda a: cut(a / "prompt.safetensors"),
        ("prompt.safetensors", "not a safetensors file"),
    ),
    "truncated heads": (
        lambda a: cut(a / "heads.safetensors"),
        ("heads.safetensors", "not a safetensors file"),
    ),
    "truncated config": (lambda a: cut(a / "config.json"), ("config.json", "not valid JSON")),
    "no prompt": (
        lambda a: (a / "prompt.safetensors").unlink(),
        ("prompt.safetensors", "no such file"),
    ),
    "no artifact": (shutil.rmtree, ("config.json", "no such file", "run the stage")),
}


def test_out_of_domain_only_shared_labels_count() -> None:
    """The model finds the PER, and splits the LOC into a LOC and an ORG.

    Recall is 1 of 2. Precision is 1 of 3, or 1 of 2 without the ORG.
    """
    from stages import out_of_domain
    from stages.evaluation.load_model import Subject

    class FakeSubject(Subject):
        def decoded(self, split: EvalSet) -> list[Any]:
            return [["B-PER", "O", "B-LOC", "B-ORG"]]

    split = EvalSet(
        ner.TASK,
        (),
        [ner.Example("a", tuple("abcd"), ("B-PER", "B-LOC", "O", "O"))],
        None,
        np.arange(1),
    )
    subject = FakeSubject(None, split, "f1", 0, 64, 16, {})
    assert out_of_domain._score(subject, split, {}) == pytest.approx(
        100 * 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)
    )
    assert out_of_domain._score(subject, split, {"PER": "PER", "LOC": "LOC"}) == pytest.approx(50)
    assert out_of_domain._score(subject, split, {"PER": "PER"}) == 100


def test_a_model_that_lacks_an_intent_of_the_data_is_refused() -> None:
    """Only the labels of tags can be mapped."""
    from stages.evaluation.shifts import TaskClasses, shift_problems

    model = TaskClasses("intent_and_slots", ("O", "B-city", "I-city", "intent:buy", "intent:fly"))
    data = TaskClasses("intent_and_slots", ("O", "B-town", "I-town", "intent:fly", "intent:eat"))
    shift = ShiftParams(data="other", model="requests", labels={"town": "city"})
    (problem,) = shift_problems(shift, model, data)
    assert "other has the classes intent:eat, which requests lacks" in problem
    assert not shift_problems(shift, model, data._replace(classes=data.classes[:-1]))


# For each case: the change of probe.out_of_domain, and the expected parts of a message.
SHIFTS: dict[str, tuple[Callable[[Values], object], tuple[str, ...]]] = {
    "unknown label of the data": (
        lambda s: s.update(labels={"PRE": "PER"}),
        ("labels: no label 'PRE'; did you mean 'PER'?",),
    ),
    "unknown label of the model": (
        lambda s: s.update(labels={"PER": "PRE"}),
        ("labels: no label 'PRE'; did you mean 'PER'?",),
    ),
    "another pair of tasks": (
        lambda s: s.update(data="world_srl"),
        ("has no world_ner on world_ner; add it",),
    ),
}


@pytest.mark.parametrize("case", SHIFTS)
def test_an_error_in_out_of_domain_is_reported(case: str, copied: Path) -> None:
    from stages.out_of_domain import out_of_domain

    corrupt, wanted = SHIFTS[case]
    edit(copied, lambda values: corrupt(values["probe"]["out_of_domain"][0]))
    messages = problems(out_of_domain, "multitask", "world_ner", "world_ner")
    assert any(all(part in problem for part in ("params.yaml", *wanted)) for problem in messages), (
        messages
    )
    assert not (copied / "results/out_of_domain").exists()


@pytest.mark.parametrize("case", ARTIFACT)
def test_an_incompatible_artifact_is_refused(case: str, copied: Path) -> None:
    from stages.evaluate import evaluate

    corrupt, wanted = ARTIFACT[case]
    corrupt(copied / "artifacts/multitask/world_ner")
    before = contents(copied / "results", copied / "predictions")
    assert before
    messages = problems(evaluate, "multitask", "world_ner")
    assert any(all(part in problem for part in wanted) for problem in messages), messages
    assert contents(copied / "results", copied / "predictions") == before


def test_all_errors_of_an_artifact_are_reported_at_once(copied: Path) -> None:
    from stages.evaluate import evaluate

    edit_json(
        copied / "artifacts/multitask/world_ner/config.json",
        lambda v: v.update(hidden_size=768, model_type="x"),
    )
    assert len(problems(evaluate, "multitask", "world_ner")) == 2


def test_an_artifact_without_the_task_is_refused(copied: Path) -> None:
    from stages.evaluate import evaluate

    path = copied / "artifacts/multitask/world_ner/config.json"
    edit_json(path, lambda v: v["heads"].update(other=v["heads"].pop("world_ner")))
    (message,) = problems(evaluate, "multitask", "world_ner")
    assert "world_ner" in message


BACKBONE: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "missing folder": (
        lambda f: shutil.rmtree(f / "backbone"),
        ("folder:backbone", "has no config.json"),
    ),
    "no package": (
        lambda f: edit(f, lambda v: v["backbone"].update(source="package:no_such_package/x")),
        ("not installed",),
    ),
    "other weights": (
        lambda f: edit(f, lambda v: v["backbone"].update(sha256="0" * 64)),
        ("expected 000", "correct the sha256"),
    ),
    "truncated weights": (
        lambda f: cut(f / "backbone/model.safetensors"),
        ("sha256 of", "get the right weights"),
    ),
    "no weights": (
        lambda f: (f / "backbone/model.safetensors").unlink(),
        ("model.safetensors is missing",),
    ),
}


@pytest.mark.parametrize("case", BACKBONE)
def test_a_wrong_backbone_is_refused(case: str, copied: Path) -> None:
    from stages.evaluate import evaluate
    from stages.featurize import featurize
    from stages.finetune import finetune

    corrupt, wanted = BACKBONE[case]
    corrupt(copied)
    before = contents(copied / "artifacts", copied / "results", copied / "data")
    for call, arms in ((featurize, ()), (finetune, ("multitask",)), (evaluate, ("multitask",))):
        (message,) = problems(call, *arms, "world_ner")
        assert all(part in message for part in wanted), message
    assert contents(copied / "artifacts", copied / "results", copied / "data") == before


def test_the_error_of_diverged_training_names_the_rows(copied: Path) -> None:
    edit(
        copied,
        lambda values: values["arms"]["multitask"].update(head_lr=1e30, warmup_ratio=0.0, epochs=1),
    )
    done = python(
        copied, environment(copied / "home"), "-m", "stages.finetune", "multitask", "world_ner"
    )
    assert done.returncode == 1, done.stdout
    (line,) = done.stderr.splitlines()
    found = re.fullmatch(
        r"error: step 2: the loss is .+ and its gradient's norm .+, on the rows world_ner: (.+); "
        r"lower the learning rate, or check these rows; the last checkpoint is kept",
        line,
    )
    assert found, line
    ids = set(pq.read_table(copied / "data/examples/world_ner/train.parquet")["id"].to_pylist())
    assert set(found[1].split(", ")) <= ids


def test_a_hidden_state_cache_without_lower_layers_is_refused(copied: Path) -> None:
    from stages.finetune import finetune
    from stages.pretrain import pretrain

    edit(copied, lambda values: values["arms"]["multitask"].update(hidden_state_cache_mb=9))
    edit(copied, lambda values: values["pretrain"]["ner_only"].update(hidden_state_cache_mb=9))
    before = contents(copied / "artifacts")
    for call, words in ((finetune, ("multitask", "world_ner")), (pretrain, ("ner_only",))):
        where = "pretrain.ner_only" if call is pretrain else "arms.multitask"
        assert problems(call, *words) == (
            f"params.yaml: {where}: hidden_state_cache_mb is 9, but no layer is below its prompt; "
            "remove it, or set prompt_layers in the params of that prompt",
        )
    assert contents(copied / "artifacts") == before


def test_pretraining_and_finetuning_cache_the_lower_layers(copied: Path) -> None:
    """The multitask arm has the prompt layers of its mixture."""
    edit(
        copied,
        lambda values: values["pretrain"]["ner_only"].update(
            prompt_layers=1, hidden_state_cache_mb=9
        ),
    )
    edit(copied, lambda values: values["arms"]["multitask"].update(hidden_state_cache_mb=9))
    done = python(
        copied,
        environment(copied / "home"),
        "-c",
        IN_ONE_PROCESS,
        "pretrain ner_only",
        "finetune multitask world_ner",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (
        len(re.findall(r"caching the output of the lower layers on disk: \d+\.\d MB", done.stdout))
        == 2
    )
    assert not [
        path
        for path in (copied / ".work").rglob("*")
        if path.is_file() and path.name.startswith("tmp")
    ]


def test_features_that_differ_from_the_mixture_are_refused(copied: Path) -> None:
    from stages.pretrain import pretrain

    edit_json(
        copied / "data/features/world_ner/summary.json",
        lambda v: v["splits"]["train"].update(sha256="0"),
    )
    before = contents(copied / "artifacts")
    (message,) = problems(pretrain, "ner_only")
    assert "the features of world_ner have changed" in message
    assert "run mixture_corpora and mix again" in message
    assert contents(copied / "artifacts") == before


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("finetune", ("multitsk", "world_ner")),
        ("evaluate", ("multitsk", "world_ner")),
        ("finetune", ("multitask", "world_nre")),
        ("evaluate", ("multitask", "world_nre")),
        ("finetune", ("multitask", "world_ner", "8")),
        ("evaluate", ("multitask", "world_ner", "eight")),
        ("pretrain", ("ner_onli",)),
        ("mix", ("ner_onli",)),
        ("mixture_corpora", ("ner_onli",)),
        ("featurize", ("world_nre",)),
        ("generate", ("nerr",)),
    ],
)
def test_an_unknown_argument_is_reported(stage: str, words: tuple[str, ...], copied: Path) -> None:
    import importlib

    before = contents(copied)
    messages = problems(getattr(importlib.import_module(f"stages.{stage}"), stage), *words)
    assert any(repr(word) in problem for word in words for problem in messages), messages
    assert contents(copied) == before


# Presets


@pytest.mark.parametrize(
    "path",
    [ROOT / "params.yaml", *sorted((ROOT / "presets").glob("*.yaml"))],
    ids=lambda path: path.stem,
)
def test_presets_are_valid_and_their_recipes_exist(path: Path) -> None:
    checked = check_params(load_yaml(path), str(path))
    for name in checked.tasks:
        assert load_recipe(ROOT / "data_recipes" / f"{name}.yaml").name == name


@pytest.mark.parametrize(
    "path", sorted((ROOT / "presets").glob("paper_*.yaml")), ids=lambda path: path.stem
)
def test_dvc_lists_the_stages_of_the_paper_presets(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Params and recipes are valid, and params.yaml has all keys that dvc.yaml reads.

    The folders of the corpora are empty. `dvc repro --dry` cannot replace this test, because it
    ends at the first stage with missing inputs.
    """
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "data_recipes", tmp_path / "data_recipes")
    shutil.copy(ROOT / "dvc.yaml", tmp_path)
    shutil.copy(path, tmp_path / "params.yaml")
    values = load_yaml(path)
    for task in values["tasks"].values():
        (tmp_path / values["data_root"] / task["source"]).mkdir(parents=True, exist_ok=True)
    check_project()
    env = environment(tmp_path / "home")
    assert python(tmp_path, env, "-m", "dvc", "init", "--no-scm", "--quiet").returncode == 0
    listed = python(tmp_path, env, "-m", "dvc", "stage", "list", "--name-only").stdout.split()
    arms = values["compare"]["arms"]
    assert {
        f"{stage}@{task}"
        for stage in ("prepare", "finetune", "evaluate")
        for task in values["tasks"]
    } <= set(listed)
    assert {f"baseline@{arm}-{task}" for arm in arms for task in values["tasks"]} <= set(listed)
    assert {f"pretrain@{mixture}" for mixture in values["mixtures"]} <= set(listed)


def switch_preset(name: str, data_root: str = "") -> None:
    """Run `deep-prompt preset NAME [DATA_ROOT]`."""
    preset(Namespace(name=name, data_root=data_root))


@pytest.fixture
def switch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the presets and a params.yaml."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DATA_ROOT", raising=False)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    (tmp_path / "corpora").mkdir()
    return tmp_path


@pytest.mark.parametrize("by_environment", [False, True])
def test_a_preset_replaces_params_with_the_data_root(
    by_environment: bool, switch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    former = (switch / "params.yaml").read_bytes()
    root = str(switch / "corpora")
    if by_environment:
        monkeypatch.setenv("DATA_ROOT", root)
    switch_preset("real_small", "" if by_environment else root)
    source, now = load_yaml(switch / "presets/real_small.yaml"), load_yaml(switch / "params.yaml")
    assert source["data_root"] != root
    assert now == {**source, "data_root": root}
    assert (switch / "params.yaml.before").read_bytes() == former
    load_params()
    switch_preset("default")
    switch_preset("default")
    assert (switch / "params.yaml.before").read_bytes() == former, "an earlier backup stays"
    assert load_yaml(switch / "params.yaml.before.2") == now
    assert (switch / "params.yaml.before.3").exists()


def test_a_preset_writes_an_absolute_path_to_corpora_beside_the_project(switch: Path) -> None:
    (switch.parent / "beside").mkdir()
    switch_preset("real_small", "../beside")
    assert load_yaml(switch / "params.yaml")["data_root"] == str((switch / "../beside").resolve())


def test_a_preset_keeps_its_data_root_by_default(switch: Path) -> None:
    switch_preset("real_small")
    assert load_yaml(switch / "params.yaml") == load_yaml(switch / "presets/real_small.yaml")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("real_smal",), ("'real_smal'", "did you mean 'real_small'?")),
        (("",), ("NAME is missing; use one of", "real_small")),
        (("real_small", "nowhere"), ("DATA_ROOT: 'nowhere' is not a folder",)),
        (("broken",), ("presets/broken.yaml: arms", "head_lr is -1", "above 0")),
    ],
)
def test_an_invalid_preset_does_not_change_params(
    words: tuple[str, ...], wanted: tuple[str, ...], switch: Path
) -> None:
    if "broken" in words:
        shutil.copy(switch / "presets/real_small.yaml", switch / "presets/broken.yaml")
        edit(
            switch,
            lambda values: values["arms"]["multitask"].update(head_lr=-1),
            "presets/broken.yaml",
        )
    before = contents(switch)
    messages = problems(switch_preset, *words)
    assert any(all(part in problem for part in wanted) for problem in messages), messages
    assert contents(switch) == before


# A full disk and stop signals


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "x/y"),
            1,
            "error: rank 1: x/y: No space left on device; free some disk space",
        ),
        (
            Stopped("stopped after step 3 of 9, with a checkpoint"),
            143,
            "stopped after step 3 of 9, with a checkpoint; run it again",
        ),
    ],
)
def test_a_full_disk_or_a_stop_ends_with_one_line(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught, report_errors("rank 1: "):
        raise error
    assert caught.value.code == code
    captured = capsys.readouterr()
    assert message in captured.out + captured.err


def test_other_system_errors_are_not_user_errors() -> None:
    with pytest.raises(PermissionError), report_errors():
        raise PermissionError(errno.EACCES, "Permission denied", "x")


def test_a_second_sigint_stops_immediately() -> None:
    with stops() as signals:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
        assert signals == [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_nohup_keeps_its_meaning() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stops() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals == []
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        with stops() as signals:
            os.kill(os.getpid(), signal.SIGHUP)
            assert signals == [signal.SIGHUP]
    finally:
        signal.signal(signal.SIGHUP, before)


# Progress


def rows_of(first: int, last: int) -> list[dict[str, float]]:
    return [
        {
            "step": step,
            "loss": 1.25,
            "prompt_lr": 0.5,
            f"loss_{'ab'[step % 2]}": 1.0 + step,
            f"share_{'ab'[step % 2]}": 1.0,
        }
        for step in range(first, last + 1)
    ]


def run_of(steps: int, folder: Path) -> None:
    from pipeline.training.callbacks import CallbackList, TrainingRun
    from stages.training.curve import CurveFile
    from stages.training.progress import Progress

    run = TrainingRun(steps)
    with Progress("pretrain-all", ["a", "b"]) as progress:
        callback = CallbackList([progress, CurveFile(folder / "work/train.tsv", ["a", "b"])])
        for row in rows_of(1, steps):
            run.add_step(row, {}, 0.5, 80.0)
            callback.step(run, 8, 100)
            if row["step"] == 2:
                run.validation.append({"step": 2, "score": 3.0, "score_a": 2.0, "score_b": 4.0})
                callback.validated(run)


def test_progress_in_a_pipe_is_plain_lines(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    run_of(4, tmp_path)
    first, last = capsys.readouterr().out.splitlines()
    assert first == "  step 2: validation 3.00 (a 2.00, b 4.00)"
    assert last.startswith("  step 4/4  loss 1.250 (a 5.00, b 4.00)  ")
    assert " tokens/s  0 s left" in last


def test_progress_in_a_pipe_is_one_line_per_15_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from pipeline.training.callbacks import TrainingRun
    from stages.training import progress

    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    run = TrainingRun(10)
    with progress.Progress("x", ["x"]) as shown:
        for step in range(1, 9):
            run.add_step({"step": step, "loss": 0.5}, {}, 0.5, 80.0)
            shown.step(run, 12, 60)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["3/10", "6/10"]
    assert lines[0] == "  step 3/10  loss 0.500  2 rows/s  10 tokens/s  42 s left"


def test_the_curve_is_readable_during_training_and_has_no_duplicate_steps(tmp_path: Path) -> None:
    """The first run ends after step 4; the second run resumes after step 2."""
    from pipeline.training.callbacks import TrainingRun
    from stages.training.curve import CurveFile

    run_of(4, tmp_path)
    path = tmp_path / "work/train.tsv"
    before = path.read_text()
    assert before.splitlines()[:3] == [
        "step\tloss\tprompt_lr\tloss_a\tshare_a\tloss_b\tshare_b\tseconds\tpeak_memory_mb",
        "1\t1.25\t0.5\t\t\t2\t1\t0.5\t80",
        "2\t1.25\t0.5\t3\t1\t\t\t0.5\t80",
    ]
    run = TrainingRun(4)
    for row in rows_of(1, 3):
        run.add_step(row, {}, 0.5, 80.0)
    curve = CurveFile(path, ["a", "b"])
    curve.step(run, 8, 100)
    assert path.read_text() == "".join(before.splitlines(keepends=True)[:4])
    run.add_step(*rows_of(4, 4), {}, 0.5, 80.0)
    curve.step(run, 8, 100)
    assert path.read_text() == before


def test_a_closed_stdout_does_not_end_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stdout", Closed())
    run_of(4, tmp_path)
    assert len((tmp_path / "work/train.tsv").read_text().splitlines()) == 5


@pytest.mark.parametrize("starts", [True, False])
def test_a_failed_tracker_does_not_end_training(starts: bool) -> None:
    from pipeline.training.callbacks import TrainingRun
    from stages.training.tracking import Tracking

    class FailingTracker:
        def __init__(self) -> None:
            if not starts:
                self.log({})

        def log(self, row: dict[str, float]) -> None:
            raise ConnectionError("the server is away\nand more")

        def close(self) -> None:
            raise AssertionError("a failed tracker is not closed")

    run, lines = TrainingRun(3), list[str]()
    with Tracking(FailingTracker, lines.append) as tracking:
        for row in rows_of(1, 3):
            run.add_step(row, {}, 0.5, 80.0)
            tracking.step(run, 8, 100)
    assert lines == ["tracking failed, training continues without it: the server is away"]


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import threading

    controller, terminal_end = pty.openpty()
    shown = bytearray()

    def read() -> None:
        while True:
            try:
                part = os.read(controller, 4096)
            except OSError:  # the terminal is closed
                return
            shown.extend(part)
            if not part:
                return

    reader = threading.Thread(target=read)
    reader.start()
    for name, value in (("TERM", "xterm"), ("COLUMNS", "160")):
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    with io.TextIOWrapper(
        os.fdopen(terminal_end, "wb"), encoding="utf-8", write_through=True
    ) as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        run_of(4, tmp_path)
        monkeypatch.undo()
    reader.join(timeout=10)
    os.close(controller)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert "pretrain-all" in text
    assert "━" in text
    assert "4/4" in text
    assert re.search(r"loss 1\.250 \(a 5\.00, b 4\.00\) +\d+ rows/s +\d+ tokens/s", text)
    assert re.search(r"\d+:\d\d:\d\d", text), "the remaining time is missing"
    assert "  step 2: validation 3.00" in text


def test_check_moves_a_truncated_dvc_lock_aside(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """If DVC is killed while it writes dvc.lock, the file is truncated."""
    from deep_prompt.cli.check_project import check_project

    complete = (ROOT / "dvc.lock").read_text(encoding="utf-8")
    lock, aside = place / "dvc.lock", place / "dvc.lock.torn"
    for text in (complete, "schema: '2.0'\nstages: {}\n"):
        lock.write_text(text)
        check_project()
        assert (lock.read_text(), aside.exists()) == (text, False)
    for text in ("", complete[:40], complete[: complete.index("md5:") + 2]):
        lock.write_text(text)
        check_project()
        assert not lock.exists()
        assert aside.read_text() == text
    assert "dvc.lock is truncated" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "stays"),
    [("", False), ('{"a": ', False), ("{}", True), ('{"a": {"read": []}}', True)],
)
def test_check_deletes_a_truncated_lock_of_dvc_processes(
    content: str, stays: bool, place: Path
) -> None:
    from deep_prompt.cli.check_project import check_project

    path = place / ".dvc/tmp/rwlock"
    path.parent.mkdir(parents=True)
    path.write_text(content)
    check_project()
    assert path.exists() == stays


def test_check_reports_the_problems_of_a_cluster(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings, its hosts, and the variables that its ranks need."""
    cluster, hosts = place / "cluster.yaml", place / "hosts"
    check_project()
    assert "params.yaml, 3 recipes: no problems" in capsys.readouterr().out
    for settings, message in (
        ("ranks: 0\nzero: 4\n", "cluster.yaml: "),
        ("hostfile: hosts\nforward: [NO_SUCH_VARIABLE]\n", "hosts: no such file"),
        ("slurm: true\nforward: [NO_SUCH_VARIABLE]\n", "forward: NO_SUCH_VARIABLE is not set"),
    ):
        cluster.write_text(settings)
        with pytest.raises(UserError, match=message):
            check_project()
    cluster.write_text("hostfile: hosts\n")
    hosts.write_text("a slots=2\na slots=1\n")
    with pytest.raises(UserError, match="hosts:2: found 'a slots=1', but an earlier line"):
        check_project()
    hosts.write_text("a slots=2\nb slots=1\n")
    check_project()
    assert "params.yaml, cluster.yaml, 3 recipes: no problems" in capsys.readouterr().out
    cluster.write_text("ranks: 2\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(UserError, match="but 2 GPUs are needed"):
        check_project()
    monkeypatch.setenv("TOKEN", "a $b")
    for settings, messages in (
        ("hostfile: no_hosts\nforward: [TOKEN]\n", ["no_hosts: no such file", "TOKEN is 'a $b'"]),
        ("ranks: 2\nforward: [NONE]\n", ["NONE is not set", "but 2 GPUs are needed"]),
    ):
        cluster.write_text(settings)
        with pytest.raises(UserError) as error:
            check_project()
        for message, problem in zip(messages, error.value.problems, strict=True):
            assert message in problem


def test_check_warns_about_anchors_and_aliases(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from deep_prompt.cli.check_project import check_project

    check_project()
    assert "anchors" not in capsys.readouterr().out
    text = (place / "params.yaml").read_text(encoding="utf-8")
    line = text[: text.index("head_only:")].count("\n") + 1
    text = text.replace("head_only:", "head_only: &base", 1)
    (place / "params.yaml").write_text(f"{text}tracking: null # *none\n", encoding="utf-8")
    check_project()
    assert (
        f"warning: params.yaml:{line}: has anchors or aliases (lines {line}); `dvc exp run -S` and "
        "`deep-prompt tune --apply` cannot change"
    ) in capsys.readouterr().out


def test_check_warns_about_a_data_root_beside_the_project(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The path leads elsewhere in the folder of an experiment."""
    from deep_prompt.cli.check_project import check_project

    corpora = place.parent / f"corpora-of-{place.name}"
    shutil.copytree(place / "data", corpora)
    beside = f"../{corpora.name}"
    for root, warned in (("data", False), (beside, True), (str(corpora), False)):
        edit(place, lambda values, root=root: values.update(data_root=root))
        check_project()
        message = f"warning: params.yaml: data_root is '{root}', which leads elsewhere"
        assert (message in capsys.readouterr().out) == warned


def test_check_names_missing_folders_of_corpora(place: Path) -> None:
    from deep_prompt.cli.check_project import check_project

    edit(place, lambda values: values["tasks"]["world_srl"].update(source="raw/slr"))
    edit(place, lambda values: values["tasks"]["world_ner"].update(source="world/nre"))
    with pytest.raises(UserError) as caught:
        check_project()
    assert {problem.partition(";")[0] for problem in caught.value.problems} == {
        f"params.yaml: tasks.world_{name}.source: there is no folder data/{folder}"
        for name, folder in (("srl", "raw/slr"), ("ner", "world/nre"))
    }


def test_check_names_a_missing_data_root_once(place: Path) -> None:
    edit(place, lambda values: values.update(data_root="none"))
    found = problems(check_project)
    text = "params.yaml: data_root: there is no folder none (with the corpora of world_ner, "
    assert [problem[: len(text)] for problem in found] == [text]


def test_check_expects_generated_corpora_in_the_folder_that_generate_writes(place: Path) -> None:
    from deep_prompt.cli.check_project import check_project

    edit(place, lambda values: values["generate"].update(corpora=["ner", "qa"]))
    shutil.rmtree(place / "data/world")
    check_project()
    shutil.move(place / "data", place / "corpora")
    edit(place, lambda values: values.update(data_root="corpora"))
    with pytest.raises(UserError) as caught:
        check_project()
    assert {problem.partition(";")[0] for problem in caught.value.problems} == {
        f"params.yaml: tasks.world_{kind}.source: there is no folder corpora/world/{kind}"
        for kind in ("ner", "qa")
    }


def test_check_lets_dvc_run_without_git(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A downloaded archive has the folder .dvc, but no .git."""
    from deep_prompt.cli.check_project import check_project

    shutil.copytree(ROOT / ".dvc", place / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache"))
    (place / ".dvc/config.local").unlink(missing_ok=True)
    shutil.copy(ROOT / "dvc.yaml", place)
    list_stages = [sys.executable, "-m", "dvc", "stage", "list"]
    env = environment(place, forks=False)
    assert subprocess.run(list_stages, env=env, capture_output=True, check=False).returncode
    message = "this folder is not a git repository: set core.no_scm in .dvc/config.local"
    for times in (1, 0):
        check_project()
        assert capsys.readouterr().out.count(message) == times
    subprocess.run(list_stages, env=env, capture_output=True, check=True)
    (place / ".dvc/config.local").unlink()
    (place / ".git").mkdir()
    check_project()
    assert not (place / ".dvc/config.local").exists()


def test_check_deletes_data_and_names_results_of_removed_tasks_and_mixtures(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [f"data/corpora/{name}.json" for name in ("gone", "world_ner")]
    data += [f"data/mixtures/{name}.json" for name in ("gone", "all")]
    data.append("data/mixtures/.keep")
    results = ["artifacts/multitask/gone", "artifacts/pretrain/gone", "models/gone"]
    results.append("results/multitask/gone")
    for path in (*data, *(f"{folder}/file" for folder in (*results, "models/world_ner"))):
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_text("{}")
    check_project()
    output = capsys.readouterr().out
    assert [path for path in data if not (place / path).exists()] == [data[0], data[2]]
    assert f"deleted {data[0]}: params.yaml has no such task" in output
    assert f"deleted {data[2]}: params.yaml has no such mixture" in output
    assert f"has no tasks or mixtures for {', '.join(results)}; delete what" in output
    assert all((place / folder / "file").exists() for folder in results)


def test_check_reports_errors_and_deletes_features_of_removed_tasks(
    place: Path,
) -> None:
    from deep_prompt.cli.check_project import check_project

    kept = {"world_ner", ".tmp-world_ner.a1b2c3d4"}  # the latter is of a featurize that runs
    for name in ("gone", *kept):
        (place / "data/features" / name).mkdir(parents=True)
    check_project()
    assert {path.name for path in (place / "data/features").iterdir()} == kept
    (place / "data_recipes/world_ner.yaml").unlink()
    assert any("world_ner.yaml: no such file" in problem for problem in problems(check_project))
    edit(place, lambda values: values.update(seed="7"))
    found = problems(check_project)
    assert [problem.partition(";")[0] for problem in found] == [
        "params.yaml: seed: found text '7', expected an integer",
        "data_recipes/world_ner.yaml: no such file",
    ]


@pytest.mark.parametrize("recipe", ["world_qa", "data_recipes/world_qa.yaml"])
def test_check_of_a_recipe_takes_folder_and_windows_of_its_task_from_params(
    recipe: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_backbone(place / "backbone", place / "data/world/qa")
    command = ["check", recipe, "--backbone", "folder:backbone"]
    main(command)
    output = capsys.readouterr().out
    assert "checking data/world/qa, the source of world_qa in params.yaml" in output
    length = load_yaml(place / "params.yaml")["tasks"]["world_qa"]["max_length"]
    assert f"A window has at most {length} sub-words." in output
    with pytest.raises(SystemExit):
        main([*command, "--folder", "data/world/qa"])
    assert "--max-length is 128, but the backbone has" in capsys.readouterr().err


def test_check_of_a_task_takes_backbone_and_answer_length_from_params(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (place / "data/world/qa").iterdir():
        text = path.read_text(encoding="utf-8")
        answer = text.replace('"cat", "answer_start": 2', '"A cat", "answer_start": 0')
        path.write_text(answer, encoding="utf-8")
    make_backbone(place / "backbone", place / "data/world/qa")
    edit(place, lambda values: values["tasks"]["world_qa"].update(max_answer_length=1))
    edit(place, lambda values: values["backbone"].update(source="folder:backbone"))
    main(["check", "world_qa"])
    output = capsys.readouterr().out
    assert "counting sub-words with the tokenizer of folder:backbone" in output
    assert "Rows that a perfect model gets wrong" in output
    edit(place, lambda values: values["backbone"].update(source=f"hub:o/none@{'0' * 40}"))
    main(["check", "world_qa"])
    output = " ".join(capsys.readouterr().out.split())
    assert "sub-words are not counted: the backbone hub:o/none@" in output
    assert "To see lengths in sub-words, pass --backbone." in output


def test_check_of_a_missing_corpus_or_recipe_names_the_remedy(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(place / "data/world/qa")
    edit(place, lambda values: values["generate"].update(corpora=["qa"]))
    for name, message in (
        ("world_qa", "data/world/qa: no such folder; run `dvc repro generate@qa`"),
        ("world_a", "data_recipes/world_a.yaml: no such file; create it, or correct the name; did"),
    ):
        with pytest.raises(SystemExit):
            main(["check", name])
        assert f"error: {message}" in capsys.readouterr().err


def test_a_missing_or_empty_params_file_names_the_command_that_writes_it(switch: Path) -> None:
    for text in ("", None):
        (switch / "params.yaml").unlink()
        if text is not None:
            (switch / "params.yaml").touch()
        [problem] = problems(load_params)
        assert problem.endswith("write it with `deep-prompt preset default`")


def test_check_reports_params_that_would_fail_in_a_later_stage(place: Path) -> None:
    def wrong(values: Values) -> None:
        tasks = values["tasks"]
        tasks["world_ner"]["init_from"] = "multitask/world_srl"
        tasks["world_srl"] |= {"init_from": "multitask/world_qa", "head_only": {"head_lr": "x"}}
        tasks["world_qa"]["init_from"] = "multitask/world_ner"
        values["mixtures"]["all"] = {**values["mixtures"]["all"], "shares": {"world_ner": 1.0}}
        values["pretrain"]["other"] = values["pretrain"]["all"]

    before = (place / "params.yaml").read_text(encoding="utf-8")
    edit(place, wrong)
    cycle, rate = "world_ner -> world_srl -> world_qa -> world_ner", "head_lr: found text 'x'"
    expected = ("all.shares: found world_ner; give one for each of", "no mixture 'other'", cycle)
    found = problems(check_project)
    for message in (*expected, rate):
        assert sum(message in problem for problem in found) == 1, (message, found)

    (place / "params.yaml").write_text(before, encoding="utf-8")
    edit(place, lambda values: values["tasks"]["world_ner"].update(source="/data/ner"))
    edit(place, lambda values: values["mixtures"]["ner_only"].update(corpora=["world_ner"] * 2))
    found = problems(check_project)
    assert "source is '/data/ner'; give a folder below data_root" in found[0]
    assert "corpora is world_ner, world_ner; name each task once" in found[1]

    (place / "params.yaml").write_text(before, encoding="utf-8")
    shifts = [
        {"data": "world_qa", "model": "world_ner", "labels": {}},
        {"data": "world_srl", "model": "world_srl", "labels": {"ARGX": "ARG0"}},
    ]
    edit(place, lambda values: values["probe"].update(out_of_domain=shifts))
    edit(place, lambda values: values["tasks"]["world_ner"].update(source="hub"))
    found = problems(check_project)
    for message in (
        "tasks.world_ner.source is hub, but data_recipes/world_ner.yaml has no hub; add ",
        "world_ner on world_qa: the tasks are token_classification and span_extraction",
        "world_srl on world_srl: labels: no label 'ARGX'",
    ):
        assert sum(message in problem for problem in found) == 1, (message, found)


def test_check_reports_every_arm_that_does_not_fit_a_task(place: Path) -> None:
    from deep_prompt.cli.check_project import check_project

    values = params("0" * 64)
    compare_untrained(values)
    task = values["tasks"]["world_ner"]
    values["tasks"]["world_ner"] = {**task, "max_answer_length": 30}
    values["tasks"]["texts"] = dict(task)
    values["compare"]["tasks"].append("texts")
    write_params(place, values)
    (place / "data_recipes/texts.yaml").write_text(
        (ROOT / "data_recipes/e2e.yaml").read_text(encoding="utf-8"), encoding="utf-8"
    )
    found = problems(check_project)
    assert len(found) == 3
    assert "head_only trains only a head, but text_generation uses the frozen LM head" in found[0]
    assert "tasks.world_ner.max_answer_length is 30" in found[1]
    assert "untrained trains nothing, but token_classification needs a trained head" in found[2]


def test_a_task_overrides_params_of_an_arm(place: Path) -> None:
    values = load_yaml(place / "params.yaml")
    values["tasks"]["world_ner"]["head_only"] = {"head_lr": 0.5}
    checked = check_params(values, "p.yaml")
    assert checked.training("head_only", "world_ner").head_lr == 0.5
    assert checked.training("multitask", "world_ner").head_lr != 0.5
    values["tasks"]["world_ner"]["head_only"] = {"prompt_lr": 0.5}
    assert problems(check_params, values, "p.yaml") == (
        "p.yaml: arms.head_only with tasks.world_ner.head_only: prompt_lr is set, but head_only "
        "trains no prompt; remove it",
    )
    values["tasks"]["world_ner"]["head_only"] = None
    assert problems(check_params, values, "p.yaml") == (
        "p.yaml: tasks.world_ner.head_only: found nothing, expected a mapping",
    )


def test_training_params_writes_a_file_per_run(place: Path) -> None:
    from stages.training_params import training_params

    def files() -> dict[str, float]:
        folder = place / "data/training_params"
        return {
            str(path.relative_to(folder)): load_json(path)["epochs"]
            for path in sorted(folder.rglob("*.json"))
        }

    training_params()
    expected = {f"multitask/world_{kind}.json": 0.3 for kind in ("ner", "qa", "srl")}
    assert files() == {"head_only/world_ner.json": 0.3} | expected
    edit(place, lambda values: values["compare"].update(tasks=["world_srl"]))
    edit(place, lambda values: values["tasks"]["world_qa"].update(multitask={"epochs": 2}))
    edit(place, lambda values: values["repeat"].update(tasks=["world_srl"]))
    training_params()
    assert files() == {"head_only/world_srl.json": 0.3} | expected | {
        "multitask/world_qa.json": 2.0
    }


def test_the_folders_of_mixtures_exist_in_a_project_without_one(place: Path) -> None:
    """DVC refuses a stage that depends on a folder which no stage makes."""
    from stages.training_params import training_params

    training_params()
    stages = load_yaml(ROOT / "dvc.yaml")["stages"]
    folders = {"report": "data/mixtures", "transfer": "artifacts/pretrain"}
    for name, folder in folders.items():
        assert folder in stages[name].get("do", stages[name])["deps"]
        assert f"{folder}/.keep" in stages["training_params"]["outs"]
        assert (place / folder / ".keep").read_bytes() == b""


def test_removed_tasks_and_mixtures_rerun_the_stages_that_compare_all_prompts(place: Path) -> None:
    """DVC keeps the outputs of removed stages, so a folder of artifacts does not change."""
    from stages.training_params import training_params

    stages = load_yaml(ROOT / "dvc.yaml")["stages"]
    assert {"tasks", "mixtures"} <= {*stages["report"]["params"]}
    assert "data/prompts.json" in stages["transfer"]["do"]["deps"]
    training_params()
    before = load_json(place / "data/prompts.json")
    assert before["tasks"]["world_qa"] == "pretrain/all"
    assert before["mixtures"] == ["all", "ner_only"]
    edit(place, lambda values: values["tasks"].pop("world_qa"))
    edit(place, lambda values: values["tasks"]["world_srl"].update(init_from="pretrain/ner_only"))
    training_params()
    after = load_json(place / "data/prompts.json")
    assert after["mixtures"] == before["mixtures"]
    assert after["tasks"].keys() == before["tasks"].keys() - {"world_qa"}
    assert after["tasks"]["world_srl"] == "pretrain/ner_only"


def test_mix_depends_on_the_params_that_set_its_number_of_steps(place: Path) -> None:
    """It does not depend on other params of the training, and a param may have its default."""
    from stages.training_params import training_params

    stage = load_yaml(ROOT / "dvc.yaml")["stages"]["mix"]["do"]
    assert "data/mixture_steps/${key}.json" in stage["deps"]
    assert stage["params"] == ["mixtures.${key}"]
    edit(place, lambda values: values["pretrain"]["all"].pop("micro_batches_per_step"))
    edit(place, lambda values: values["pretrain"]["ner_only"].update(micro_batches_per_step=3))
    training_params()
    written = {
        name: load_json(place / f"data/mixture_steps/{name}.json") for name in ("all", "ner_only")
    }
    steps = {"epochs": 0.3, "tokens_per_micro_batch": 128, "micro_batches_per_step": 1}
    assert written == {
        "all": steps | {"epochs": 0.4},
        "ner_only": steps | {"micro_batches_per_step": 3},
    }


def test_lora_runs_through_all_stages(copied: Path) -> None:
    """A second training gives equal bytes; evaluation, report and prediction work."""
    from pipeline.inference.loading import load
    from stages.evaluate import evaluate
    from stages.finetune import finetune
    from stages.report import report

    def only_world_ner(values: Values) -> None:
        for section, key in (("tasks", "world_srl"), ("mixtures", "all"), ("pretrain", "all")):
            del values[section][key]
        rates = {"prompt_lr": "lora_lr"}
        tuned = {rates.get(key, key): value for key, value in values["arms"]["multitask"].items()}
        values["arms"]["lora"] = tuned | {"lora_rank": 2}
        values["compare"]["arms"] = ["lora"]
        values["repeat"]["arms"] = values["probe"]["arms"] = ["multitask"]
        values["probe"] |= {"tasks": ["world_ner"], "out_of_domain": []}

    edit(copied, only_world_ner)
    finetune("lora", "world_ner")
    artifact = copied / "artifacts/lora/world_ner"
    before = contents(artifact)
    assert {Path(name).name for name in before} == {
        "config.json",
        "heads.safetensors",
        "lora.safetensors",
    }
    shutil.rmtree(artifact)
    finetune("lora", "world_ner")
    assert contents(artifact) == before
    evaluate("lora", "world_ner")
    metrics = load_json(copied / "results/lora/world_ner/metrics.json")
    sizes = [
        array.size
        for name in ("lora", "heads")
        for array in load_file(artifact / f"{name}.safetensors").values()
    ]
    multitask = load_json(copied / "results/multitask/world_ner/metrics.json")
    assert len(sizes) == 2 * 2 * 2 + 2, "8 low-rank factors, 2 tensors of the head"
    assert metrics["parameters"]["trained"] == sum(sizes)
    assert metrics["parameters"]["backbone"] == multitask["parameters"]["backbone"]
    report()
    text = (copied / "report/report.md").read_text(encoding="utf-8")
    assert "low-rank factors" in text
    assert "LoRA" in text
    predictor = load([artifact])
    (prediction,) = predictor.predict([{"text": "Ada left."}])
    assert prediction.task == "world_ner"
    corpus = load_json(copied / "data/examples/world_ner/summary.json")
    assert predictor.tasks["world_ner"].word_rule == corpus["word_rule"] == "treebank"


def test_low_rank_factors_beside_a_shared_prompt(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A second training gives equal bytes; the artifact is loaded alone, and not exported."""
    from deep_prompt.cli.export_import import export
    from pipeline.inference.loading import load
    from stages.evaluate import evaluate
    from stages.finetune import finetune
    from stages.pretrain import pretrain
    from stages.transfer import _comparable_prompts, transfer

    def with_lora(values: Values) -> None:
        values["pretrain"]["ner_only"]["scale_shift"] = True
        own = {"lora_lr": 0.01, "lora_rank": 2, "lora_alpha": 4.0, "epochs": 2}
        values["tasks"]["world_ner"]["multitask"] = own

    edit(copied, with_lora)
    pretrain("ner_only")
    finetune("multitask", "world_ner")
    artifact = copied / "artifacts/multitask/world_ner"
    names = {"config.json", "heads", "lora", "prompt", "scale_shift"}
    assert {path.name.removesuffix(".safetensors") for path in artifact.iterdir()} == names
    factors = load_file(artifact / "lora.safetensors")
    assert all(factor.any() for factor in factors.values()), "all are trained"
    before = contents(artifact)
    shutil.rmtree(artifact)
    finetune("multitask", "world_ner")
    assert contents(artifact) == before
    evaluate("multitask", "world_ner")
    metrics = load_json(copied / "results/multitask/world_ner/metrics.json")
    values = [array.size for path in artifact.glob("*.s*") for array in load_file(path).values()]
    assert metrics["parameters"]["trained"] == sum(values)
    assert load([artifact])([{"text": "Ada left."}])[0].task == "world_ner"
    with pytest.raises(UserError, match="its prompt was trained with LoRA factors"):
        export(Namespace(artifact=artifact, output=copied / "out", task=None, base_model="x"))
    with pytest.raises(UserError, match="its factors change the backbone's layers"):
        load([artifact, copied / "artifacts/pretrain/ner_only"])
    shared = copied / "artifacts/pretrain/ner_only"
    for other in ("multitask/world_srl", "pretrain/all"):
        shutil.rmtree(copied / "artifacts" / other, ignore_errors=True)
        shutil.copytree(shared, copied / "artifacts" / other)
    assert _comparable_prompts("multitask/world_srl", load_params()) == [
        "multitask/world_srl",
        "pretrain/all",
        "pretrain/ner_only",
    ]
    assert "because of LoRA factors: multitask/world_ner" in capsys.readouterr().out
    transfer("world_ner")
    compared = load_json(copied / "results/transfer/world_ner/metrics.json")["scores"]
    assert list(compared) == ["multitask/world_ner", "none"]
    frame = pd.read_csv(copied / "results/transfer/world_ner/cosines.tsv", sep="\t")
    assert frame.empty
    assert list(frame.columns) == ["prompt", "layer", "cosine", "cosine_added"]


def test_a_start_without_a_deep_prompt_is_refused(copied: Path) -> None:
    from stages.finetune import finetune

    finetune("head_only", "world_ner")
    shutil.copytree(copied / "artifacts/head_only/world_ner", copied / "artifacts/imported/heads")

    def start(values: Values) -> None:
        values["tasks"]["world_ner"]["init_from"] = "imported/heads"

    edit(copied, start)
    with pytest.raises(UserError, match="imported/heads: arm is 'head_only', without a deep prom"):
        finetune("multitask", "world_ner")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"lora_rank": 4}, "lora_rank is set, but there are no LoRA factors without lora_lr"),
        ({"lora_lr": 0.1, "hidden_state_cache_mb": 9}, "LoRA factors change the layers below the"),
    ],
)
def test_params_of_factors_beside_a_prompt_that_have_no_effect_are_refused(
    own: Values, message: str, place: Path
) -> None:
    edit(place, lambda values: values["tasks"]["world_ner"].update(multitask=own))
    with pytest.raises(UserError, match=message):
        load_params()


def test_a_control_on_random_weights_runs_through_all_stages(copied: Path) -> None:
    """Its params are those of a deep prompt, and each seed has other random weights."""
    from deep_prompt.cli.export_import import export
    from stages.evaluate import evaluate
    from stages.finetune import finetune, set_up

    def add_control(values: Values) -> None:
        tuned = {**values["arms"]["multitask"], "num_virtual_tokens": 4}
        values["arms"] |= {"random_backbone": tuned, "deep_prompt": tuned}
        values["compare"]["arms"] = ["random_backbone", "deep_prompt"]
        values["repeat"] |= {"arms": ["random_backbone"], "seeds": [8]}

    edit(copied, add_control)
    finetune("random_backbone", "world_ner")
    artifact = copied / "artifacts/random_backbone/world_ner"
    before = contents(artifact)
    shutil.rmtree(artifact)
    finetune("random_backbone", "world_ner")
    assert contents(artifact) == before
    finetune("random_backbone", "world_ner", "8")
    records = [
        load_json(folder / "config.json")["random_weights"]
        for folder in (artifact, copied / "artifacts/repeat/8/random_backbone/world_ner")
    ]
    assert [record["seed"] for record in records] == [7, 8]
    assert records[0]["sha256"] != records[1]["sha256"]
    evaluate("random_backbone", "world_ner")
    predictions = contents(copied / "predictions/random_backbone/world_ner")
    evaluate("random_backbone", "world_ner")
    assert contents(copied / "predictions/random_backbone/world_ner") == predictions
    params = load_params()
    arms: tuple[ArmName, ...] = ("random_backbone", "deep_prompt")
    control, prompt = (
        set_up(arm, "world_ner", params.training(arm, "world_ner"), params) for arm in arms
    )
    assert control.start["random_weights"] == records[0]["sha256"], "a run resumes on its weights"
    assert control.start.keys() - prompt.start.keys() == {"random_weights"}
    arguments = {"to": "peft", "output": copied / "adapter", "task": None, "base_model": None}
    (problem,) = problems(export, Namespace(artifact=artifact, verify=False, **arguments))
    assert "it was made for random weights of seed 7 of the backbone, not for its pre" in problem


def test_an_arm_that_trains_nothing_is_refused_for_a_task_with_a_head(copied: Path) -> None:
    from stages.finetune import finetune

    edit(copied, compare_untrained)
    message = (
        "params.yaml: compare: untrained trains nothing, but token_classification needs a trained "
        "head; remove untrained from compare.arms, or world_ner from compare.tasks"
    )
    assert [*problems(check_project)] == [message]
    assert [*problems(finetune, "untrained", "world_ner")] == [message]
    assert not (copied / "artifacts/untrained").exists()


def test_featurize_records_the_maximum_length_of_answers_and_warns(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from pipeline.evaluation.splits import load_eval_set
    from stages.featurize import featurize
    from stages.prepare import prepare
    from stages.training_params import training_params

    sha256 = make_backbone(place / "backbone", place / "data/world/qa")
    edit(place, lambda values: values["backbone"].update(sha256=sha256))
    prepare("world_qa")
    for maximum, recorded in ((None, 30), (2, 2)):
        edit(
            place, lambda values, m=maximum: values["tasks"]["world_qa"].update(max_answer_length=m)
        )
        featurize("world_qa")
        training_params()
        output = capsys.readouterr().out
        assert ("low-ceiling: 3 (warning)" in output) == (maximum == 2), "'cat' has 3 sub-words"
        assert ("world_qa: train: a perfect model would score f1 0.0" in output) == (maximum == 2)
        features = place / "data/features/world_qa"
        summary = load_json(features / "summary.json")
        assert summary["max_answer_length"] == recorded
        examples = place / "data/examples/world_qa"
        eval_set = load_eval_set(features, examples, summary, "test", None)
        assert eval_set.task.max_answer_length == recorded
        written = load_json(place / "data/answer_lengths/world_qa.json")
        assert written == {"max_answer_length": maximum}


@pytest.mark.parametrize(
    ("task", "length", "message"),
    [
        (
            "world_ner",
            30,
            "is 30, but token_classification does not extract answers or generate text; remove it",
        ),
        ("world_qa", 0, "is 0; give a number of sub-words of at least 1"),
    ],
)
def test_an_invalid_maximum_length_of_answers_is_refused(
    place: Path, task: str, length: int, message: str
) -> None:
    from deep_prompt.cli.check_project import check_project

    edit(place, lambda values: values["tasks"][task].update(max_answer_length=length))
    (problem,) = problems(check_project)
    assert problem == f"params.yaml: tasks.{task}.max_answer_length {message}"


def test_a_max_length_above_the_backbone_limit_is_refused(copied: Path) -> None:
    from stages.featurize import featurize

    values = load_yaml(copied / "params.yaml")
    values["tasks"]["world_ner"]["max_length"] = 6000
    write_params(copied, values)
    (message,) = problems(featurize, "world_ner")
    assert "tasks.world_ner.max_length is 6000, but the backbone has" in message


def test_a_max_length_beyond_the_shifted_positions_is_refused(copied: Path) -> None:
    from stages.finetune import finetune

    values = load_yaml(copied / "params.yaml")
    values["tasks"]["world_ner"] |= {"max_length": 63, "init_from": "pretrain/ner_only"}
    write_params(copied, values)
    edit_json(
        copied / "artifacts/pretrain/ner_only/config.json", lambda v: v.update(position_offset=4)
    )
    (message,) = problems(finetune, "multitask", "world_ner")
    assert message == (
        "params.yaml: tasks.world_ner.max_length is 63, but its prompt shifts texts by 4 of the "
        "backbone's 64 positions; reduce max_length"
    )


def test_a_report_on_a_mixture_of_removed_corpora_is_refused(copied: Path) -> None:
    from stages.report import report

    path = copied / "data/mixtures/all.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    for name in ("all", "ner_only"):
        (path.parent / f"{name}.json").write_text(
            json.dumps({"corpora": {"world_ner": {}, "gone": {}}}), encoding="utf-8"
        )
    (message,) = problems(report)
    assert "all, ner_only: its corpora differ from those in params.yaml" in message
    assert "deep-prompt check" in message
