"""The command deep-prompt: predict, inspect, export, import and publish."""

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
from pipeline.inference.predictor import Predictor
from pipeline.interop.peft import to_peft
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.lora import add_lora, lora_factors
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams
from pipeline.world import write_corpus
from tests.support import tiny
from tests.support.small_project import ROOT, environment, make_backbone, python_of

torch.set_num_threads(1)
HEADS = {
    "ner": TaskHead(
        "token_classification",
        "classes",
        ("O", "B-X", "I-X"),
        thresholds={"temperature": 1.5},
        word_rule="treebank",
    ),
    "qa": TaskHead(
        "span_extraction", "positions", ("start", "end"), thresholds={"null_margin": 1.23456}
    ),
}
NER = '{"task": "ner", "id": "n", "tokens": ["Ada", "in", "Bonn"]}\n'
QA = '{"task": "qa", "question": "who", "context": "Ada in Bonn"}\n'


class Artifacts:
    """A backbone and two artifacts: `ner` with a prompt, `qa` without a prompt."""

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
        fields = {
            "seed": 7,
            "training": {"epochs": 0.1, "note": "[b]no markup[/b]"},
            "pretrained_on": ["a", "b"],
        }
        shape = None if prompt is None else prompt.shape
        save_artifact(
            self.folder / name,
            model,
            ArtifactConfig(
                arm,
                self.params,
                "bert",
                32,
                heads,
                shape,
                backbone_files=self.backbone.files,
                provenance=fields,
            ),
        )
        return self.folder / name


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return Artifacts(tmp_path_factory.mktemp("place"))


@pytest.fixture(autouse=True)
def _restore_sigterm_handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


class Result:
    """The result of a command: its exit code, stdout and stderr."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[Any]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Run the command in this process. A new process would need seconds to import torch."""

    def run(*args: object, stdin: str | bytes = "") -> Result:
        content = stdin if isinstance(stdin, bytes) else stdin.encode()
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content)))
        capfd.readouterr()
        code: Any = 0
        try:
            cli.main(list(map(str, args)))
        except SystemExit as error:
            code = error.code
        sys.stdout.flush()
        return Result(code, *capfd.readouterr())

    return run


def process(artifacts: Artifacts, *args: object, forks: bool = True) -> "subprocess.Popen[bytes]":
    env = environment(artifacts.folder, forks) | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [python_of(env), "-m", "deep_prompt", *map(str, args)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        cwd=artifacts.folder,
    )


def test_predict_reads_and_writes_files(
    artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(f"\ufeff{NER}\n{QA}{NER}", encoding="utf-8")
    done = command(
        "predict",
        "--artifact",
        artifacts.ner,
        "--artifact",
        artifacts.qa,
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


def test_predict_reads_and_writes_pipes(
    artifacts: Artifacts, command: Callable[..., Result]
) -> None:
    done = command(
        "predict",
        "--artifact",
        artifacts.ner,
        "--artifact",
        artifacts.qa,
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


def test_predict_reads_text_and_skips_bad_rows(
    artifacts: Artifacts, command: Callable[..., Result]
) -> None:
    text = "Ada, in Bonn 👩‍👩‍👧 né"
    rows = [{"text": text}, {"text": " "}, {"text": text, "tokens": ["a"]}, {"tokens": ["Ada"]}]
    stdin = "".join(json.dumps(row) + "\n" for row in rows)
    done = command("predict", "--artifact", artifacts.ner, "--skip-bad", stdin=stdin)
    assert (done.code, [line["id"] for line in done.lines]) == (0, [0, 3])
    for entity in done.lines[0]["result"]["entities"]:
        assert text[entity["start"] : entity["end"]] == entity["text"]
    assert done.err.splitlines() == [
        "skipped: stdin:2: text is empty: ' '; fill it in, or remove the row",
        "skipped: stdin:3: has text and tokens, which may differ; leave out one of them",
        "rows skipped: 2",
    ]


def test_predict_says_which_heads_have_no_thresholds(
    artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    shutil.copytree(artifacts.qa, tmp_path / "qa")
    values = json.loads((tmp_path / "qa/config.json").read_text(encoding="utf-8"))
    values["heads"]["qa"]["thresholds"] = {}
    (tmp_path / "qa/config.json").write_text(json.dumps(values), encoding="utf-8")
    folders = ("--artifact", artifacts.ner, "--artifact", tmp_path / "qa")
    done = command("predict", *folders, stdin=QA)
    assert (done.code, len(done.lines)) == (0, 1)
    (line,) = done.err.splitlines()
    assert line.startswith(f"warning: {tmp_path}/qa: head 'qa' has no thresholds: ")
    assert "such as 'no answer'; load the folder that the stage release writes" in line


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "tokenizer.json"])
def test_predict_refuses_another_config_or_tokenizer(
    name: str, artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    """The weights are the same, but the predictions would differ."""
    shutil.copytree(artifacts.folder / "backbone", tmp_path / "backbone")
    path = tmp_path / "backbone" / name
    values = json.loads(path.read_text(encoding="utf-8"))
    change = {
        "config.json": {"hidden_act": "relu"},
        "tokenizer_config.json": {"do_lower_case": False},
        "tokenizer.json": {"normalizer": None},
    }[name]
    path.write_text(json.dumps(values | change), encoding="utf-8")
    moved = ("--artifact", artifacts.ner, "--backbone", f"folder:{tmp_path}/backbone")
    done = command("predict", *moved, stdin=NER)
    assert done.code == 1
    assert f"it was made with another {name} of the backbone, which may change" in done.err
    assert "use the backbone it was made for, or make the artifact again" in done.err


def test_text_is_not_changed_or_escaped(
    artifacts: Artifacts, command: Callable[..., Result]
) -> None:
    done = command(
        "predict",
        "--artifact",
        artifacts.ner,
        stdin='{"id": "Zoë \u2028 \\ud83d\\ude00", "tokens": ["ß\u0085"]}\n',
    )
    assert done.code == 0
    assert "Zoë \u2028 😀" in done.out


def test_the_option_task_applies_to_rows_without_a_task(
    artifacts: Artifacts, command: Callable[..., Result]
) -> None:
    args = ("predict", "--artifact", artifacts.ner, "--artifact", artifacts.qa)
    done = command(*args, "--task", "ner", stdin='{"tokens": ["a"]}\n' + QA)
    assert [line["task"] for line in done.lines] == ["ner", "qa"]
    assert (
        command(*args, stdin='{"tokens": ["a"]}\n').err
        == "error: stdin:1: key 'task' is missing; give one of ner, qa\n"
    )
    assert (
        command(*args, "--task", "nre").err
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
    (
        b'{"task": "ner", "task": "qa"}\n',
        "stdin:2: key 'task' occurs twice in a mapping; remove one of them",
    ),
    (
        b'{"task": "ner", "tokens": ["\\ud800"]}\n',
        "stdin:2: an escape \\ud8.. to \\udf.. is half of",
    ),
    (b'{"task": "ner", "tokens": ["a"', "stdin:2: not valid JSON at column 31"),
]


@pytest.mark.parametrize(("line", "message"), BAD)
def test_a_malformed_line_is_refused_or_skipped(
    line: bytes, message: str, artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    args = (
        "predict",
        "--artifact",
        artifacts.ner,
        "--artifact",
        artifacts.qa,
        "--output",
        tmp_path / "out.jsonl",
    )
    rows = NER.encode() + line + (QA.encode() if line.endswith(b"\n") else b"")
    done = command(*args, stdin=rows)
    assert done.code == 1
    assert done.err.startswith(f"error: {message}")
    assert all(line.startswith("error: ") for line in done.err.splitlines())
    assert os.listdir(tmp_path) == [], "there is no output file, complete or partial"
    done = command(*args, "--skip-bad", stdin=rows)
    assert done.code == 0
    assert done.err.startswith(f"skipped: {message}")
    assert done.err.endswith("rows skipped: 1\n")
    tasks = [
        json.loads(line)["task"]
        for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert tasks == ["ner", "qa"][: rows.count(b"\n") - 1 or 1]


def test_a_late_malformed_line_keeps_the_old_output_file(
    artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "out.jsonl").write_text("old")
    args = ("predict", "--artifact", artifacts.ner, "--chunk-rows", 1)
    done = command(*args, "--output", tmp_path / "out.jsonl", stdin=NER * 3 + "{")
    assert done.code == 1
    assert (tmp_path / "out.jsonl").read_text() == "old"
    assert os.listdir(tmp_path) == ["out.jsonl"]
    done = command(*args, stdin=NER * 3 + "{")
    assert done.code == 1
    assert len(done.lines) == 3, "stdout has complete lines only"


def test_the_output_may_be_the_input_or_a_link_or_a_device(
    artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    file, link = tmp_path / "rows.jsonl", tmp_path / "link"
    file.write_text(NER)
    link.symlink_to(file)
    assert (
        command("predict", "--artifact", artifacts.ner, "--input", file, "--output", link).code == 0
    )
    assert "result" in file.read_text()
    assert link.is_symlink()
    assert (
        command("predict", "--artifact", artifacts.ner, "--output", "/dev/null", stdin=NER).code
        == 0
    )
    assert Path("/dev/null").is_char_device()


def test_truncated_questions_are_counted_on_stderr(
    artifacts: Artifacts, command: Callable[..., Result]
) -> None:
    row = json.dumps({"task": "qa", "question": "a " * 60, "context": "b"})
    done = command("predict", "--artifact", artifacts.qa, stdin=row)
    assert (done.code, done.err) == (0, "questions cut: 1\n")
    assert json.loads(done.out)["cut"] == {"questions cut": 1}


def test_the_backbone_may_have_moved(
    artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "moved").symlink_to(artifacts.folder / "backbone")
    args = ("predict", "--artifact", artifacts.ner, "--backbone")
    assert command(*args, f"folder:{tmp_path}/moved", stdin=NER).code == 0
    assert "has no config.json" in command(*args, f"folder:{tmp_path}/no", stdin=NER).err
    assert command(*args, "moved", stdin=NER).err.startswith(
        "error: --backbone: source is 'moved'; write package:NAME/FOLDER"
    )


@pytest.mark.parametrize(
    ("args", "message"),
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
        (("--artifact", "{ner}", "--top-p", "0.5"), "--top-p: has no effect without --sample"),
        (("--artifact", "{ner}", "--num-beams", "2"), "--num-beams: the artifacts generate no tex"),
        (("--artifact", "{ner}", "--max-length", "65"), "max_length is 65"),
    ],
)
def test_a_user_error_ends_with_1(
    args: tuple[str, ...], message: str, artifacts: Artifacts, command: Callable[..., Result]
) -> None:
    done = command("predict", *(word.format(ner=artifacts.ner) for word in args), stdin=NER)
    assert done.code == 1
    assert done.err.startswith(f"error: {message.format(ner=artifacts.ner)}")
    assert done.out == ""


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((), "required: COMMAND"),
        (("predcit",), "invalid choice: 'predcit'"),
        (("predict",), "one of the arguments --artifact --server is required"),
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
    args: tuple[str, ...], message: str, command: Callable[..., Result]
) -> None:
    done = command(*args)
    assert done.code == 2
    assert message in done.err
    assert done.err.startswith("usage: deep-prompt")


@pytest.mark.parametrize("name", ["", "check", "predict", "inspect", "export", "import", "publish"])
def test_help_describes_every_option(name: str, command: Callable[..., Result]) -> None:
    done = command(*([name] if name else []), "--help")
    assert done.code == 0
    options = re.findall(r"^  (--?\w[\w-]*|[A-Z]+)", done.out.split("options:")[-1], re.MULTILINE)
    assert options
    usage, description, *_ = done.out.split("\n\n")
    assert usage.startswith("usage: deep-prompt")
    assert len(description) > 20
    for option in options:
        assert re.search(rf"^  {option}.*(\n.*)?[a-z]{{3}}", done.out, re.MULTILINE)


def test_help_loads_no_heavy_library() -> None:
    heavy = {"torch", "transformers", "rich", "numpy", "pandas", "pyarrow", "dvc"}
    check = (
        "import sys; from deep_prompt.cli.main import main\ntry: main(['predict', '--help'])\n"
        f"except SystemExit: print({heavy} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", check], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("set()\n")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("place", ["_logits", "_windows", "__init__"])
def test_a_signal_does_not_interrupt_the_library(
    number: signal.Signals,
    place: str,
    artifacts: Artifacts,
    command: Callable[..., Result],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An exception out of a signal handler in the code of a library may end in SIGABRT."""
    inner, calls = getattr(Predictor, place), []

    def interrupted(*args: Any, **kwargs: Any) -> Any:
        signal.raise_signal(number)
        calls.append(number)
        return inner(*args, **kwargs)

    monkeypatch.setattr(Predictor, place, interrupted)
    output = tmp_path / "out.jsonl"
    arguments = ("--artifact", artifacts.ner, "--chunk-rows", 1, "--output", output)
    done = command("predict", *arguments, stdin=NER * 3)
    assert calls == [number]
    assert (done.code, done.out, done.err) == (128 + number, "", "")
    assert os.listdir(tmp_path) == []


# Tests that need a process


def test_rows_of_an_open_pipe_are_predicted_in_chunks(artifacts: Artifacts) -> None:
    args = ("predict", "--artifact", artifacts.ner, "--chunk-rows", 2)
    with process(artifacts, *args, forks=False) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for number in range(3):  # Write the next rows after the predictions of these.
            running.stdin.write((NER * 2).encode())
            running.stdin.flush()
            assert [json.loads(running.stdout.readline())["task"] for _ in range(2)] == [
                "ner",
                "ner",
            ], number
        running.stdin.close()
        assert running.wait(180) == 0
        assert running.stdout.read() == b""


def test_a_closed_stdout_ends_the_command_silently(artifacts: Artifacts) -> None:
    with process(artifacts, "predict", "--artifact", artifacts.ner, "--chunk-rows", 1) as running:
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
def test_a_signal_leaves_no_files(
    number: signal.Signals, artifacts: Artifacts, tmp_path: Path
) -> None:
    with process(
        artifacts,
        "predict",
        "--artifact",
        artifacts.ner,
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_command_while_it_waits(
    number: signal.Signals, artifacts: Artifacts
) -> None:
    """It waits for rows, and then for the reader of its predictions."""
    for rows in (1, 1500):
        arguments = ("predict", "--artifact", artifacts.ner, "--chunk-rows", rows)
        with process(artifacts, *arguments) as running:
            assert running.stdin is not None
            assert running.stdout is not None
            assert running.stderr is not None
            running.stdin.write(NER.encode() * rows)
            running.stdin.flush()
            assert running.stdout.read(1) == b"{"
            time.sleep(0.5)
            running.send_signal(number)
            assert running.wait(60) == 128 + number
            assert running.stderr.read() == b""


# The other commands


def test_inspect_describes_an_artifact(
    artifacts: Artifacts, command: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    done = command("inspect", artifacts.ner)
    assert (done.code, done.err) == (0, "")
    trained = artifacts.prompt.key_values.numel() + 3 * 33
    share = 100 * trained / artifacts.backbone.num_parameters
    for part in [
        "deep_prompt (format 3)",
        f"folder:{artifacts.folder}/backbone: bert, hidden size 32",
        str(artifacts.params.sha256),
        "4 virtual tokens in layers 0 to 1; 2 key/value heads of size 16",
        f"{trained:,} values, {share:.2f} % of the backbone's "
        f"{artifacts.backbone.num_parameters:,} (prompt 512, heads 99)",
        "task ner",
        "token_classification, 3 classes: O, B-X, I-X",
        "file prompt.safetensors",
        "kB",
        "epochs 0.1, note [b]no markup[/b]",
        "pretrained_on",
        "a, b",
    ]:
        assert part in done.out, part
    done = command("inspect", artifacts.qa)
    assert re.search(r"prompt +│ none", done.out)
    assert "span_extraction, 2 positions: start, end; null_margin 1.235" in done.out


def test_inspect_json_is_the_config(artifacts: Artifacts, command: Callable[..., Result]) -> None:
    done = command("inspect", artifacts.qa, "--json")
    assert done.code == 0
    assert json.loads(done.out) == json.loads(
        (artifacts.qa / "config.json").read_text(encoding="utf-8")
    )


def test_inspect_does_not_need_the_backbone(
    artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    for file in artifacts.ner.iterdir():
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
def interop(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Replace pipeline.interop.peft, which has other tests. Returns the arguments of its calls."""
    called: dict[str, Any] = {}
    fake = ModuleType("pipeline.interop.peft")

    def read(name: str) -> Callable[..., DeepPrompt]:
        def run(path: Path, backbone: Backbone) -> DeepPrompt:
            called[name] = path
            return DeepPrompt(torch.ones(backbone.prompt_shape(3)), position_offset=3)

        return run

    def write(folder: Path, prompt: DeepPrompt, backbone: Backbone, base_model_name: str) -> None:
        called.update(prompt=prompt, base=base_model_name)
        folder.mkdir()
        (folder / "adapter_config.json").write_text("{}")

    def verify(*arguments: Any) -> float:
        called["verified"] = arguments
        return 1.23e-7

    functions = {
        "from_peft": read("peft"),
        "from_ptuning_v2": read("ptuning_v2"),
        "to_peft": write,
        "lora_to_peft": None,
        "verify": verify,
    }
    for name, function in functions.items():
        setattr(fake, name, function)
    monkeypatch.setitem(sys.modules, "pipeline.interop.peft", fake)
    monkeypatch.setitem(sys.modules, "pipeline.interop.ptuning_v2", fake)
    return called


def test_export_writes_and_verifies_a_peft_adapter(
    artifacts: Artifacts, command: Callable[..., Result], interop: dict[str, Any], tmp_path: Path
) -> None:
    args = ("export", "--to", "peft", "--artifact")
    done = command(*args, artifacts.ner, "--output", tmp_path / "a")
    assert (done.code, done.err) == (0, "")
    assert f"wrote {tmp_path}/a" in done.out
    assert torch.equal(interop["prompt"].key_values, artifacts.prompt.key_values)
    assert interop["base"] == str(artifacts.folder / "backbone")
    assert "verified" not in interop
    done = command(*args, artifacts.ner, "--output", tmp_path / "c", "--task", "ner")
    assert (done.code, "--task: " in done.err, "leave out --task" in done.err) == (1, True, True)
    done = command(
        *args, artifacts.ner, "--output", tmp_path / "b", "--base-model", "x/y", "--verify"
    )
    assert "differ by at most 1.2e-07" in done.out
    assert interop["base"] == "x/y"
    folder, prompt, _, backbone_folder, ids, mask = interop["verified"]
    assert (folder, backbone_folder) == (tmp_path / "b", artifacts.folder / "backbone")
    assert prompt is interop["prompt"]
    assert ids.shape == mask.shape
    assert mask.sum(1).tolist()[0] > mask.sum(1).tolist()[1] > 2
    assert not ids[~mask.bool()].any()
    done = command(*args, artifacts.qa, "--output", tmp_path / "c")
    assert (
        done.err
        == f"error: {artifacts.qa}: arm is 'head_only', without a deep prompt or LoRA factors; "
        "export an artifact of another arm\n"
    )


def test_inspect_predict_and_export_support_lora(
    artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    backbone = Backbone.load(artifacts.folder / "backbone").requires_grad_(False)
    add_lora(backbone, rank=2, alpha=4.0, seed=0)
    factors = lora_factors(backbone)
    for factor in factors.values():
        factor.data = torch.ones_like(factor)
    model = PromptedModel(backbone, None, Heads(["classes"], [3], 32, 0), train_backbone=False)
    fields: dict[str, Any] = {"lora_rank": 2, "lora_alpha": 4.0}
    config = ArtifactConfig("lora", artifacts.params, "bert", 32, {"ner": HEADS["ner"]}, **fields)
    save_artifact(tmp_path / "lora", model, config)
    description = command("inspect", tmp_path / "lora").out
    numbers = sum(factor.numel() for factor in factors.values())
    assert "factors of rank 2, alpha 4" in description
    assert f"lora {numbers:,}" in " ".join(description.replace("│", " ").split())
    done = command("predict", "--artifact", tmp_path / "lora", stdin=NER)
    assert (done.code, len(done.lines)) == (0, 1)
    args = ("export", "--to", "peft", "--artifact", tmp_path / "lora", "--output", tmp_path / "x")
    done = command(*args, "--verify")
    assert (done.code, done.err) == (0, "")
    assert "verified: the hidden states of peft and deep-prompt differ by" in done.out
    done = command(
        "predict", "--artifact", tmp_path / "lora", "--artifact", artifacts.qa, stdin=NER
    )
    assert "arm is 'lora': its factors change the backbone's layers" in done.err


def test_import_makes_an_artifact(
    artifacts: Artifacts, command: Callable[..., Result], interop: dict[str, Any], tmp_path: Path
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
            artifacts.params.source,
            "--sha256",
            artifacts.params.sha256,
            "--output",
            output,
        )
        assert (done.code, done.err) == (0, "")
        assert interop[origin] == tmp_path / path
        config = load_config(output)
        assert (config.arm, config.heads, config.backbone) == ("deep_prompt", {}, artifacts.params)
        assert (config.prompt_shape, config.position_offset) == ((2, 2, 2, 3, 16), 3)
        hashes = {Path(file).name: sha256(tmp_path / file) for file in files}
        assert config.provenance == {"imported_from": origin, "files": hashes}
        done = command("predict", "--artifact", output, stdin=NER)
        assert "heads is empty" in done.err
        assert "none" not in command("inspect", output).err


def test_an_imported_adapter_keeps_its_base_model_and_its_token_types(
    artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    backbone = Backbone.load(artifacts.folder / "backbone")
    prompt = DeepPrompt(torch.ones(backbone.prompt_shape(3)), position_offset=3)
    to_peft(tmp_path / "a", prompt, backbone, "owner/other")
    path = tmp_path / "a/adapter_config.json"
    arguments = ("import", "--from", "peft", "--input", tmp_path / "a")
    arguments += ("--backbone", artifacts.params.source, "--sha256", artifacts.params.sha256)
    names = {"owner/other": 1, "owner/backbone": 0, None: 0}
    for number, (name, expected) in enumerate(names.items()):
        values = json.loads(path.read_text()) | {"base_model_name_or_path": name, "scale": number}
        path.write_text(json.dumps(values | {"task_type": "QUESTION_ANS"}))
        done = command(*arguments, "--output", tmp_path / f"b{number}")
        assert done.code == 0
        first, *others = done.err.splitlines()
        assert first.startswith(f"warning: {path}: unknown key 'scale' is '{number}'")
        assert (
            others
            == [
                f"warning: {path}: base_model_name_or_path is {name!r}, but --backbone is "
                f"{artifacts.params.source!r}; check that both have the same weights"
            ]
            * expected
        )
        config = load_config(tmp_path / f"b{number}")
        assert config.zero_token_types
        assert config.provenance.get("base_model_name_or_path") == name
        assert "sets all token types to 0" in command("inspect", tmp_path / f"b{number}").out


def test_import_refuses_encoder_decoders(
    command: Callable[..., Result], interop: dict[str, Any], tmp_path: Path
) -> None:
    tiny.sequence_to_sequence("bart").save_pretrained(tmp_path / "bart")
    digest = sha256(tmp_path / "bart/model.safetensors")
    arguments = ("--backbone", f"folder:{tmp_path / 'bart'}", "--sha256", digest)
    for origin in ("peft", "ptuning_v2"):
        done = command(
            "import", "--from", origin, "--input", tmp_path, *arguments, "--output", tmp_path / "a"
        )
        assert done.code == 1
        assert "'bart' is an encoder-decoder, and prompts of encoder-decoders were" in done.err


def test_import_needs_the_hash_of_the_backbone(
    artifacts: Artifacts, command: Callable[..., Result], interop: dict[str, Any], tmp_path: Path
) -> None:
    done = command(
        "import",
        "--from",
        "peft",
        "--input",
        tmp_path,
        "--backbone",
        artifacts.params.source,
        "--output",
        tmp_path / "a",
    )
    assert done.code == 1
    assert done.err.startswith(
        "error: --backbone: sha256 is missing; add the output of `sha256sum model.safetensors`"
    )


class Hub:
    """A replacement of HfApi that records its calls."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.error = error

    def create_repo(self, repo: str, **options: Any) -> None:
        self.calls.append(("create", repo, options))
        if self.error:
            raise self.error

    def create_commit(self, repo: str, operations: Any, commit_message: str) -> SimpleNamespace:
        self.calls.append(("commit", repo, {file.path_in_repo: file for file in operations}))
        return SimpleNamespace(commit_url="https://hub/o/n/commit/1")


def test_an_artifact_without_provenance_is_published_with_its_commit(
    artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from pipeline.interop import hub as interop

    hub = Hub()
    monkeypatch.setattr(interop, "HfApi", lambda token: hub)
    folder = tmp_path / "ner"
    shutil.copytree(artifacts.ner, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["provenance"]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    interop.upload(folder, "o/n", token="t", commit="c" * 40)
    files = hub.calls[-1][2]
    assert json.loads(files["config.json"].path_or_fileobj)["provenance"] == {"commit": "c" * 40}


def test_publish_uploads_the_files_of_an_artifact(
    artifacts: Artifacts,
    command: Callable[..., Result],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    from pipeline.interop import hub as interop

    hub, tokens = Hub(), iter([None, "t", "t", "t"])
    monkeypatch.setattr(interop, "HfApi", lambda token: hub)
    monkeypatch.setattr(interop, "get_token", lambda: next(tokens))
    monkeypatch.setattr(publish, "_commit", lambda artifact: "c" * 40)
    folder = tmp_path / "ner"
    shutil.copytree(artifacts.ner, folder)
    (folder / "other.bin").write_bytes(b"")
    args = ("publish", "--artifact", folder, "--repo", "o/n")
    assert f"{folder} has no README.md" in command(*args).err
    (folder / "README.md").write_text("# A card\n")
    done = command(*args)
    assert (
        done.err == "error: found no token for the hub; log in with `hf auth login`, or set "
        "HF_TOKEN\n"
    )
    assert hub.calls == []
    done = command(*args, "--private")
    assert done.code == 0
    assert "https://hub/o/n" in done.out
    create, (_, repo, files) = hub.calls
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
    hub.error = RuntimeError("403 Forbidden\nmore")
    assert (
        command(*args).err
        == "error: o/n: 403 Forbidden; check the network, the token and the name of the "
        "repository\n"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("", ""),
        ("git commit", "the project has no git commit"),
        ("git add", "the project has no git commit"),
        ("params.yaml", "commit params.yaml first"),
        ("data_recipes/new.yaml", "commit data_recipes/new.yaml first"),
        ("notes.txt", ""),
        ("another repository", "the project has no git commit"),
    ],
)
def test_only_committed_inputs_are_published_with_a_commit(
    change: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    def git(*words: str) -> str:
        command = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(tmp_path if change == "another repository" else project)
    git("init", "--quiet")
    monkeypatch.chdir(project)
    for name in publish.INPUTS:
        path = project / name if name.endswith("yaml") else project / name / "file"
        path.parent.mkdir(exist_ok=True)
        path.write_text("x")
    if change == "another repository":  # It ignores the folder of the project.
        (tmp_path / ".gitignore").write_text("project\n")
        git("add", "--all", str(tmp_path))
    elif change != "git add":
        git("add", "--all")
    if change != "git commit":
        git("commit", "--quiet", "--allow-empty", "--message", "a")
    if "." in change:
        (project / change).write_text("y")
    monkeypatch.setattr(publish, "_is_up_to_date", lambda task: task == "ner")
    commit = None if message else git("rev-parse", "HEAD").strip()
    assert publish._commit(Path("models/ner")) == commit
    assert message in capsys.readouterr().out
    for folder in ("models/other", "artifacts/multitask/ner"):
        assert publish._commit(Path(folder)) is None
        reason = f"{folder} is not an up-to-date output of `dvc repro`"
        assert reason in capsys.readouterr().out


@pytest.mark.parametrize(
    ("code", "status", "files", "up_to_date"),
    [
        (0, "{}", {"config.json": "1"}, True),
        (0, '{"backbone_files": ["always changed"]}', {"config.json": "1"}, True),
        (0, '{"backbone_files": ["always changed"]}', {"config.json": "2"}, False),
        (
            0,
            '{"backbone_files": ["always changed", {"changed deps": {"a": "modified"}}]}',
            {"config.json": "1"},
            False,
        ),
        (0, '{"release@ner": [{"changed deps": {"data/corpora": "modified"}}]}', {}, False),
        (1, "", {}, False),
    ],
)
def test_an_artifact_is_up_to_date_if_dvc_has_nothing_to_do(
    code: int,
    status: str,
    files: dict[str, str],
    up_to_date: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = subprocess.CompletedProcess([], code, status)
    monkeypatch.setattr(publish, "_run", lambda *command: done)
    monkeypatch.setattr(publish, "load_json", lambda path: {"config.json": "1"})
    monkeypatch.setattr(publish, "hashes", lambda: files)
    assert publish._is_up_to_date("ner") == up_to_date


def test_publish_checks_its_arguments_before_it_connects(
    artifacts: Artifacts, command: Callable[..., Result], tmp_path: Path
) -> None:
    done = command("publish", "--artifact", artifacts.ner, "--repo", "name")
    assert done.err == "error: --repo: found 'name'; write OWNER/NAME\n"
    done = command("publish", "--artifact", tmp_path, "--repo", "o/n")
    assert done.err.startswith(f"error: {tmp_path}/config.json: no such file")


def test_the_command_is_installed() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    name, function = setup["options.entry_points"]["console_scripts"].strip().split(" = ")
    assert (name, function) == ("deep-prompt", f"{cli.__name__}:{cli.main.__name__}")
