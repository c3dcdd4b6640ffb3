"""The command deep-prompt: rows in, predictions out, whole or not at all; artifacts shown, exchanged and published."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from deep_prompt.cli import main as cli
from deep_prompt.cli import publish
from pipeline.arms import ArmName
from pipeline.artifacts.artifact import save_artifact
from pipeline.artifacts.config import ArtifactConfig, TaskHead, load_config
from pipeline.config import load_json
from pipeline.files import sha256
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.lora import add_lora, lora_factors
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams
from pipeline.world import write_corpus
from tests.support.small_project import ROOT, environment, make_backbone, python_of

torch.set_num_threads(1)
HEADS = {
    "ner": TaskHead("token_classification", "classes", ("O", "B-X", "I-X")),
    "qa": TaskHead(
        "span_extraction", "positions", ("start", "end"), thresholds={"null_margin": 1.23456}
    ),
}
NER = '{"task": "ner", "id": "n", "tokens": ["Ada", "in", "Bonn"]}\n'
QA = '{"task": "qa", "question": "who", "context": "Ada in Bonn"}\n'


class Place:
    """A backbone's folder and two artifacts: `ner` with a prompt, `qa` without."""

    def __init__(self, folder: Path) -> None:
        write_corpus("srl", folder / "corpus", 40, 7)
        self.folder = folder
        self.params = BackboneParams(
            f"folder:{folder}/backbone", make_backbone(folder / "backbone", folder / "corpus")
        )
        self.backbone = Backbone.load(folder / "backbone").requires_grad_(False)
        self.prompt = DeepPrompt(
            torch.randn(self.backbone.prompt_shape(4), generator=torch.Generator().manual_seed(1))
        )
        self.ner = self.save("ner", "deep_prompt", self.prompt)
        self.qa = self.save("qa", "head_only", None)

    def save(self, name: str, arm: ArmName, prompt: DeepPrompt | None) -> Path:
        heads = {name: HEADS[name]}
        model = PromptedModel(
            self.backbone,
            prompt,
            Heads([HEADS[name].kind], [len(HEADS[name].classes)], 32, 0),
            False,
        )
        about = {
            "seed": 7,
            "training": {"epochs": 0.1, "note": "[b]no markup[/b]"},
            "pretrained_on": ["a", "b"],
        }
        shape = None if prompt is None else prompt.shape
        save_artifact(
            self.folder / name,
            model,
            ArtifactConfig(arm, self.params, "bert", 32, heads, shape, provenance=about),
        )
        return self.folder / name


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("place"))


@pytest.fixture(autouse=True)
def _signals_as_they_were() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Ended:
    """How a command ended: its exit code and all that it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Ended]:
    """Run the command in this process; a second one would import torch for seconds."""

    def run(*words: object, stdin: str | bytes = "") -> Ended:
        given = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(given)))
        capfd.readouterr()
        code: Any = 0
        try:
            cli.main(list(map(str, words)))
        except SystemExit as error:
            code = error.code
        sys.stdout.flush()
        return Ended(code, *capfd.readouterr())

    return run


def process(place: Place, *words: object, forks: bool = True) -> "subprocess.Popen[bytes]":
    env = environment(place.folder, forks) | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [python_of(env), "-m", "deep_prompt", *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=place.folder,
    )


def test_from_file_to_file(place: Place, command: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(f"\ufeff{NER}\n{QA}{NER}", encoding="utf-8")
    done = command(
        "predict",
        "--artifact",
        place.ner,
        "--artifact",
        place.qa,
        "--input",
        tmp_path / "rows.jsonl",
        "--output",
        tmp_path / "out/predictions.jsonl",
    )
    assert (done.code, done.out, done.err) == (0, "", "")
    lines = [
        json.loads(line)
        for line in (tmp_path / "out/predictions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [(line["id"], line["task"]) for line in lines] == [("n", "ner"), (1, "qa"), ("n", "ner")]
    assert all(line.keys() == {"id", "task", "result"} for line in lines)
    assert lines[0] == lines[2]
    assert os.listdir(tmp_path / "out") == ["predictions.jsonl"]
    (tmp_path / "ordinary").write_text("")
    assert (tmp_path / "out/predictions.jsonl").stat().st_mode == (
        tmp_path / "ordinary"
    ).stat().st_mode


def test_from_pipe_to_pipe(place: Place, command: Callable[..., Ended]) -> None:
    done = command(
        "predict",
        "--artifact",
        place.ner,
        "--artifact",
        place.qa,
        "--batch-tokens",
        1,
        "--max-length",
        20,
        "--chunk-rows",
        2,
        stdin=NER + QA + NER,
    )
    assert (done.code, done.err) == (0, "")
    assert [line["task"] for line in done.lines] == ["ner", "qa", "ner"]


def test_text_stays_as_it_is(place: Place, command: Callable[..., Ended]) -> None:
    done = command(
        "predict",
        "--artifact",
        place.ner,
        stdin='{"id": "Zoë \u2028 \\ud83d\\ude00", "tokens": ["ß\u0085"]}\n',
    )
    assert done.code == 0
    assert "Zoë \u2028 😀" in done.out


def test_a_task_for_rows_that_name_none(place: Place, command: Callable[..., Ended]) -> None:
    words = ("predict", "--artifact", place.ner, "--artifact", place.qa)
    done = command(*words, "--task", "ner", stdin='{"tokens": ["a"]}\n' + QA)
    assert [line["task"] for line in done.lines] == ["ner", "qa"]
    assert (
        command(*words, stdin='{"tokens": ["a"]}\n').err
        == "error: stdin:1: key 'task' is missing; give one of ner, qa\n"
    )
    assert (
        command(*words, "--task", "nre").err
        == "error: --task: the artifacts have no task 'nre'; did you mean 'ner'?\n"
    )


BAD = [
    (b"{'a'}\n", "stdin:2: not valid JSON at column 2"),
    (b'{"task": "ner", "tokens": ["\xff"]}\n', "stdin:2: byte 29, 0xff, is not UTF-8"),
    (b"[1]\n", "stdin:2: found '[1]', expected a mapping"),
    (b"null\n", "stdin:2: found 'null', expected a mapping"),
    (b"[" * 100_000 + b"\n", "stdin:2: cannot be read as JSON"),
    (b'{"task": "ner", "tokens": ' + b"9" * 5000 + b"}\n", "stdin:2: cannot be read as JSON"),
    (b'{"task": "nre"}\n', "stdin:2: task: no task 'nre'; did you mean 'ner'?"),
    (
        b'{"task": "qa", "question": "who"}\n',
        "stdin:2: 'context' missing; rows of task 'qa' need question, context",
    ),
    (b'{"task": "ner", "tokens": ["\\ud800"]}\n', "stdin:2: holds half a surrogate pair"),
    (b'{"task": "ner", "tokens": ["a"', "stdin:2: not valid JSON at column 31"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_bad_line(
    line: bytes, message: str, place: Place, command: Callable[..., Ended], tmp_path: Path
) -> None:
    words = (
        "predict",
        "--artifact",
        place.ner,
        "--artifact",
        place.qa,
        "--output",
        tmp_path / "out.jsonl",
    )
    rows = NER.encode() + line + (QA.encode() if line.endswith(b"\n") else b"")
    done = command(*words, stdin=rows)
    assert done.code == 1
    assert done.err.startswith(f"error: {message}")
    assert all(said.startswith("error: ") for said in done.err.splitlines())
    assert os.listdir(tmp_path) == [], "no output file, and none half-written"
    done = command(*words, "--skip-bad", stdin=rows)
    assert done.code == 0
    assert done.err.startswith(f"skipped: {message}")
    assert done.err.endswith("rows skipped: 1\n")
    left = [
        json.loads(line)["task"]
        for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert left == ["ner", "qa"][: rows.count(b"\n") - 1 or 1]


def test_an_old_output_stays_where_a_late_line_is_bad(
    place: Place, command: Callable[..., Ended], tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl").write_text("old")
    words = ("predict", "--artifact", place.ner, "--chunk-rows", 1)
    done = command(*words, "--output", tmp_path / "out.jsonl", stdin=NER * 3 + "{")
    assert done.code == 1
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert os.listdir(tmp_path) == ["out.jsonl"]
    done = command(*words, stdin=NER * 3 + "{")
    assert done.code == 1
    assert len(done.lines) == 3, "stdout has whole lines only"


def test_the_output_may_be_the_input_or_a_link_or_a_device(
    place: Place, command: Callable[..., Ended], tmp_path: Path
) -> None:
    file, link = tmp_path / "rows.jsonl", tmp_path / "link"
    file.write_text(NER)
    link.symlink_to(file)
    assert command("predict", "--artifact", place.ner, "--input", file, "--output", link).code == 0
    assert "result" in file.read_text()
    assert link.is_symlink()
    assert command("predict", "--artifact", place.ner, "--output", "/dev/null", stdin=NER).code == 0
    assert Path("/dev/null").is_char_device()


def test_what_does_not_fit_is_said(place: Place, command: Callable[..., Ended]) -> None:
    row = json.dumps({"task": "qa", "question": "a " * 60, "context": "b"})
    done = command("predict", "--artifact", place.qa, stdin=row)
    assert (done.code, done.err) == (0, "questions cut: 1\n")


def test_a_backbone_elsewhere(place: Place, command: Callable[..., Ended], tmp_path: Path) -> None:
    (tmp_path / "moved").symlink_to(place.folder / "backbone")
    words = ("predict", "--artifact", place.ner, "--backbone")
    assert command(*words, f"folder:{tmp_path}/moved", stdin=NER).code == 0
    assert "has no config.json" in command(*words, f"folder:{tmp_path}/no", stdin=NER).err
    assert command(*words, "moved", stdin=NER).err.startswith(
        "error: --backbone: source is 'moved'; write package:NAME/FOLDER"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--artifact", "no"), "no/config.json: no such file"),
        (
            ("--artifact", "{ner}", "--input", "no.jsonl"),
            "--input: no.jsonl cannot be read: No such file",
        ),
        (
            ("--artifact", "{ner}", "--input", "{ner}"),
            "--input: {ner} cannot be read: Is a directory",
        ),
        (
            ("--artifact", "{ner}", "--output", "{ner}"),
            "--output: {ner} cannot be written: Is a directory",
        ),
        (
            ("--artifact", "{ner}", "--output", "/proc/no/file"),
            "--output: /proc/no/file cannot be written",
        ),
        (("--artifact", "{ner}", "--artifact", "{ner}"), "{ner}: head 'ner' is also in {ner}"),
        (("--artifact", "{ner}", "--max-length", "65"), "max_length is 65"),
    ],
)
def test_a_users_mistake(
    words: tuple[str, ...], message: str, place: Place, command: Callable[..., Ended]
) -> None:
    done = command("predict", *(word.format(ner=place.ner) for word in words), stdin=NER)
    assert done.code == 1
    assert done.err.startswith(f"error: {message.format(ner=place.ner)}")
    assert done.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "required: COMMAND"),
        (("predcit",), "invalid choice: 'predcit'"),
        (("predict",), "required: --artifact"),
        (
            ("predict", "--artifact", "a", "--batch-tokens", "0"),
            "'0' is not a whole number above 0",
        ),
        (
            ("predict", "--artifact", "a", "--chunk-rows", "many"),
            "'many' is not a whole number above 0",
        ),
        (("import", "--from", "elsewhere"), "invalid choice: 'elsewhere'"),
    ],
)
def test_wrong_usage_ends_with_2(
    words: tuple[str, ...], message: str, command: Callable[..., Ended]
) -> None:
    done = command(*words)
    assert done.code == 2
    assert message in done.err
    assert done.err.startswith("usage: deep-prompt")


@pytest.mark.parametrize("name", ["", "check", "predict", "inspect", "export", "import", "publish"])
def test_help_says_what_everything_is(name: str, command: Callable[..., Ended]) -> None:
    done = command(*([name] if name else []), "--help")
    assert done.code == 0
    options = re.findall(r"^  (--?\w[\w-]*|[A-Z]+)", done.out.split("options:")[-1], re.MULTILINE)
    assert options
    usage, description, *_ = done.out.split("\n\n")
    assert usage.startswith("usage: deep-prompt")
    assert len(description) > 20
    for option in options:
        assert re.search(rf"^  {option}.*(\n.*)?[a-z]{{3}}", done.out, re.MULTILINE)


def test_help_loads_no_torch() -> None:
    check = (
        "import sys; from deep_prompt.cli.main import main\ntry: main(['predict', '--help'])\n"
        "except SystemExit: print({'torch', 'transformers', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("set()\n")


# Processes: what only a real one does.


def test_an_endless_pipe_is_answered_as_it_comes(place: Place) -> None:
    words = ("predict", "--artifact", place.ner, "--chunk-rows", 2)
    with process(place, *words, forks=False) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for number in range(3):  # the next rows come after the answers to these
            running.stdin.write((NER * 2).encode())
            running.stdin.flush()
            assert [json.loads(running.stdout.readline())["task"] for _ in range(2)] == [
                "ner",
                "ner",
            ], number
        running.stdin.close()
        assert running.wait(180) == 0
        assert running.stdout.read() == b""


def test_a_reader_that_has_seen_enough(place: Place) -> None:
    with process(place, "predict", "--artifact", place.ner, "--chunk-rows", 1) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        assert running.stderr is not None
        running.stdin.write(NER.encode())
        running.stdin.flush()
        assert running.stdout.readline()
        running.stdout.close()
        running.stdin.write((NER * 3).encode())
        running.stdin.close()
        assert running.wait(180) == 128 + signal.SIGPIPE
        assert running.stderr.read() == b""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_leaves_nothing(number: signal.Signals, place: Place, tmp_path: Path) -> None:
    with process(
        place,
        "predict",
        "--artifact",
        place.ner,
        "--chunk-rows",
        1,
        "--output",
        tmp_path / "out.jsonl",
    ) as running:
        assert running.stdin is not None
        assert running.stderr is not None
        running.stdin.write((NER * 5).encode())
        running.stdin.flush()
        deadline = time.monotonic() + 60
        while not os.listdir(tmp_path):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        time.sleep(0.5)
        running.send_signal(number)
        assert running.wait(180) == 128 + number
        assert os.listdir(tmp_path) == []
        assert running.stderr.read() == b""


# The other commands


def test_inspect(
    place: Place, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = command("inspect", place.ner)
    assert (done.code, done.err) == (0, "")
    trained = place.prompt.key_values.numel() + 3 * 33
    share = 100 * trained / place.backbone.num_parameters
    for part in [
        "deep_prompt (format 3)",
        f"folder:{place.folder}/backbone: bert, hidden size 32",
        str(place.params.sha256),
        "4 virtual tokens in layers 0 to 1; 2 key/value heads of size 16",
        f"{trained:,} values, {share:.2f} % of the backbone's "
        f"{place.backbone.num_parameters:,} (prompt 512, heads 99)",
        "task ner",
        "token_classification, 3 classes: O, B-X, I-X",
        "file prompt.safetensors",
        "kB",
        "epochs 0.1, note [b]no markup[/b]",
        "pretrained_on",
        "a, b",
    ]:
        assert part in done.out, part
    done = command("inspect", place.qa)
    assert re.search(r"prompt +│ none", done.out)
    assert "span_extraction, 2 positions: start, end; null_margin 1.235" in done.out


def test_inspect_for_programs(place: Place, command: Callable[..., Ended]) -> None:
    done = command("inspect", place.qa, "--json")
    assert done.code == 0
    assert json.loads(done.out) == json.loads(
        (place.qa / "config.json").read_text(encoding="utf-8")
    )


def test_inspect_without_the_backbone(
    place: Place, command: Callable[..., Ended], tmp_path: Path
) -> None:
    for file in place.ner.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    for source in ("folder:no", f"hub:a/b@{'0' * 40}"):
        config["backbone"]["source"] = source
        (tmp_path / "config.json").write_text(json.dumps(config))
        done = command("inspect", tmp_path)
        assert done.code == 0
        assert "611 values" in done.out
        assert "%" not in done.out
    (tmp_path / "prompt.safetensors").write_bytes(b"no")
    assert command("inspect", tmp_path).err.startswith(
        f"error: {tmp_path}/prompt.safetensors: not a safetensors file"
    )
    assert command("inspect", tmp_path / "no").err.startswith(
        f"error: {tmp_path}/no/config.json: no such file"
    )


@pytest.fixture
def exchange(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """In place of pipeline.interop.peft, which its own tests hold against peft: what it was called with."""
    called: dict[str, Any] = {}
    stand_in = ModuleType("pipeline.interop.peft")

    def read(name: str) -> Callable[..., DeepPrompt]:
        def run(path: Path, backbone: Backbone) -> DeepPrompt:
            called[name] = path
            return DeepPrompt(torch.ones(backbone.prompt_shape(3)), position_offset=3)

        return run

    def write(folder: Path, prompt: DeepPrompt, backbone: Backbone, base_model_name: str) -> None:
        called.update(prompt=prompt, base=base_model_name)
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")

    stand_in.from_peft, stand_in.from_ptuning_v2 = read("peft"), read("ptuning_v2")  # type: ignore[attr-defined]
    stand_in.to_peft, stand_in.lora_to_peft = write, None  # type: ignore[attr-defined]
    stand_in.verify = lambda *given: called.update(verified=given) or 1.23e-7  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "pipeline.interop.peft", stand_in)
    monkeypatch.setitem(sys.modules, "pipeline.interop.ptuning_v2", stand_in)
    return called


def test_export(
    place: Place, command: Callable[..., Ended], exchange: dict[str, Any], tmp_path: Path
) -> None:
    words = ("export", "--to", "peft", "--artifact")
    done = command(*words, place.ner, "--output", tmp_path / "a")
    assert (done.code, done.err) == (0, "")
    assert f"wrote {tmp_path}/a" in done.out
    assert torch.equal(exchange["prompt"].key_values, place.prompt.key_values)
    assert exchange["base"] == str(place.folder / "backbone")
    assert "verified" not in exchange
    done = command(*words, place.ner, "--output", tmp_path / "b", "--base-model", "x/y", "--verify")
    assert "differ by at most 1.2e-07" in done.out
    assert exchange["base"] == "x/y"
    folder, prompt, _, backbone_folder, ids, mask = exchange["verified"]
    assert (folder, backbone_folder) == (tmp_path / "b", place.folder / "backbone")
    assert prompt is exchange["prompt"]
    assert ids.shape == mask.shape
    assert mask.sum(1).tolist()[0] > mask.sum(1).tolist()[1] > 2
    assert not ids[~mask.bool()].any()
    done = command(*words, place.qa, "--output", tmp_path / "c")
    assert (
        done.err
        == f"error: {place.qa}: arm is 'head_only', without a deep prompt or LoRA factors; export an artifact of another arm\n"
    )


def test_lora_is_shown_predicted_with_and_exported(
    place: Place, command: Callable[..., Ended], tmp_path: Path
) -> None:
    backbone = Backbone.load(place.folder / "backbone").requires_grad_(False)
    add_lora(backbone, rank=2, alpha=4.0, seed=0)
    factors = lora_factors(backbone)
    for factor in factors.values():
        factor.data = torch.ones_like(factor)
    model = PromptedModel(backbone, None, Heads(["classes"], [3], 32, 0), train_backbone=False)
    about: dict[str, Any] = {"lora_rank": 2, "lora_alpha": 4.0}
    config = ArtifactConfig("lora", place.params, "bert", 32, {"ner": HEADS["ner"]}, **about)
    save_artifact(tmp_path / "lora", model, config)
    shown = command("inspect", tmp_path / "lora").out
    numbers = sum(factor.numel() for factor in factors.values())
    assert "factors of rank 2, alpha 4" in shown
    assert f"lora {numbers:,}" in " ".join(shown.replace("│", " ").split())
    done = command("predict", "--artifact", tmp_path / "lora", stdin=NER)
    assert (done.code, len(done.lines)) == (0, 1)
    words = ("export", "--to", "peft", "--artifact", tmp_path / "lora", "--output", tmp_path / "x")
    done = command(*words, "--verify")
    assert (done.code, done.err) == (0, "")
    assert "verified: the hidden states of peft and ours differ by" in done.out
    done = command("predict", "--artifact", tmp_path / "lora", "--artifact", place.qa, stdin=NER)
    assert "arm is 'lora': its factors change the backbone's layers" in done.err


def test_import(
    place: Place, command: Callable[..., Ended], exchange: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter/adapter_model.safetensors").write_bytes(b"some")
    (tmp_path / "adapter/adapter_config.json").write_text("{}")
    (tmp_path / "adapter/README.md").write_text("other")
    (tmp_path / "checkpoint.safetensors").write_bytes(b"more")
    for origin, path, files in (
        ("peft", "adapter", ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]),
        ("ptuning_v2", "checkpoint.safetensors", ["checkpoint.safetensors"]),
    ):
        output = tmp_path / f"imported-{origin}"
        done = command(
            "import",
            "--from",
            origin,
            "--input",
            tmp_path / path,
            "--backbone",
            place.params.source,
            "--sha256",
            place.params.sha256,
            "--output",
            output,
        )
        assert (done.code, done.err) == (0, "")
        assert exchange[origin] == tmp_path / path
        config = load_config(output)
        assert (config.arm, config.heads, config.backbone) == ("deep_prompt", {}, place.params)
        assert (config.prompt_shape, config.position_offset) == ((2, 2, 2, 3, 16), 3)
        hashes = {Path(file).name: sha256(tmp_path / file) for file in files}
        assert config.provenance == {"imported_from": origin, "files": hashes}
        done = command("predict", "--artifact", output, stdin=NER)
        assert "heads is empty" in done.err
        assert "none" not in command("inspect", output).err


def test_import_needs_the_hash(
    place: Place, command: Callable[..., Ended], exchange: dict[str, Any], tmp_path: Path
) -> None:
    done = command(
        "import",
        "--from",
        "peft",
        "--input",
        tmp_path,
        "--backbone",
        place.params.source,
        "--output",
        tmp_path / "a",
    )
    assert done.code == 1
    assert done.err.startswith(
        "error: --backbone: sha256 is missing; add the output of `sha256sum model.safetensors`"
    )


class Hub:
    """In place of HfApi: notes what it is asked."""

    def __init__(self, wrong: Exception | None = None) -> None:
        self.asked: list[tuple[str, Any]] = []
        self.wrong = wrong

    def create_repo(self, repo: str, **more: Any) -> None:
        self.asked.append(("create", repo, more))
        if self.wrong:
            raise self.wrong

    def create_commit(self, repo: str, operations: Any, commit_message: str) -> SimpleNamespace:
        self.asked.append(("commit", repo, {one.path_in_repo: one for one in operations}))
        return SimpleNamespace(commit_url="https://hub/o/n/commit/1")


def test_publish(
    place: Place, command: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub

    hub, tokens = Hub(), iter([None, "t", "t", "t"])
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: next(tokens))
    monkeypatch.setattr(publish, "_commit", lambda artifact: "c" * 40)
    folder = tmp_path / "ner"
    shutil.copytree(place.ner, folder)
    (folder / "other.bin").write_bytes(b"")
    words = ("publish", "--artifact", folder, "--repo", "o/n")
    assert f"{folder} has no README.md" in command(*words).err
    (folder / "README.md").write_text("# A card\n")
    done = command(*words)
    assert (
        done.err
        == "error: publish: found no token for the hub; log in with `hf auth login`, or set HF_TOKEN\n"
    )
    assert hub.asked == []
    done = command(*words, "--private")
    assert done.code == 0
    assert "https://hub/o/n" in done.out
    create, (_, repo, files) = hub.asked
    assert create == ("create", "o/n", {"private": True, "exist_ok": True})
    assert repo == "o/n"
    assert sorted(files) == sorted({path.name for path in folder.iterdir()} - {"other.bin"})
    with files["config.json"].as_file() as file:
        config = json.load(file)
    original = load_json(folder / "config.json")
    assert config == original | {"provenance": {**original["provenance"], "commit": "c" * 40}}
    with files["README.md"].as_file() as file:
        assert (
            file.read().decode()
            == f"# A card\n\nProduced by the pipeline at commit `{'c' * 40}`.\n"
        )
    hub.wrong = RuntimeError("403 Forbidden\nmore")
    assert (
        command(*words).err
        == "error: publish: o/n: 403 Forbidden; check the network, the token and the name of the repository\n"
    )


@pytest.mark.parametrize(
    ("failing", "commit", "message"),
    [
        ("", "abc", ""),
        ("diff", "abc with changes", ""),
        ("status", None, "models/ner is not an up-to-date output of `dvc repro`"),
        ("rev-parse", None, "the project has no git commit"),
    ],
)
def test_only_an_output_of_the_pipeline_is_published_with_a_commit(
    failing: str,
    commit: str | None,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*command: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.CompletedProcess(command, int(failing in command), "abc\n")

    monkeypatch.setattr(publish, "_run", run)
    assert publish._commit(Path("models/ner")) == commit
    assert message in capsys.readouterr().out
    assert publish._commit(Path("artifacts/multitask/ner")) is None


def test_publish_refuses_before_it_asks_the_hub(
    place: Place, command: Callable[..., Ended], tmp_path: Path
) -> None:
    done = command("publish", "--artifact", place.ner, "--repo", "name")
    assert done.err == "error: --repo: found 'name'; write OWNER/NAME\n"
    done = command("publish", "--artifact", tmp_path, "--repo", "o/n")
    assert done.err.startswith(f"error: {tmp_path}/config.json: no such file")


def test_the_command_is_installed() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, where = setup["options.entry_points"]["console_scripts"].strip().split(" = ")
    assert (name, where) == ("deep-prompt", f"{cli.__name__}:{cli.main.__name__}")
