"""deep-prompt, the command: check a corpus, predict with artifacts, look at one, exchange prompts, publish.

Also `python -m stages.cli`. It reads no params.yaml: all that it needs of a run is in the artifact's folder.
"""

import argparse
import dataclasses
import json
import math
import os
import re
import signal
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from inspect import cleandoc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from pipeline.errors import UserError, did_you_mean
from pipeline.files import sha256
from pipeline.readers.base import not_utf8
from pipeline.row import Row
from stages import corpus
from stages.command import errors_shown, say, say_wrote, size_of

# Other imports are inside the functions: torch and transformers take seconds, which --help and a mistyped word should not.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from rich.table import Table
    from torch import Tensor

    from pipeline.manifest import ArtifactConfig
    from pipeline.source import BackboneParams

SOURCE = "folder:PATH, package:NAME/FOLDER or hub:ID@REVISION"


def main(words: Sequence[str] | None = None) -> None:
    """Run the command with these words, or those of the command line. Exits with 1 on a user's mistake, with 2 on wrong usage."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    given = _parser().parse_args(words)
    signal.signal(signal.SIGTERM, _terminated)
    try:
        with errors_shown():
            given.run(given)
            sys.stdout.flush()
    except BrokenPipeError:  # whoever reads stdout has seen enough, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python's own flush at exit would say so
        raise SystemExit(128 + signal.SIGPIPE) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _terminated(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)  # so that what is being written beside is removed


def _parser() -> ArgumentParser:
    parser = ArgumentParser("deep-prompt", description="Check a corpus; use artifacts: prompts and heads on a frozen backbone.",
                            epilog="`deep-prompt COMMAND --help` says more of a command.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, run, words, text in (
            ("check", corpus.check, corpus.words, "check one corpus, before anyone trains"),
            ("predict", predict, _predict_words, "predict rows of many tasks over one backbone"),
            ("inspect", inspect, _inspect_words, "show what an artifact is"),
            ("export", export, _export_words, "write an artifact's prompt as another library's"),
            ("import", import_, _import_words, "make an artifact of another library's prompt"),
            ("publish", publish, _publish_words, "upload an artifact to the Hugging Face hub")):
        command = commands.add_parser(name, help=text, description=cleandoc(run.__doc__ or ""),
                                      formatter_class=argparse.RawDescriptionHelpFormatter)
        words(command)
        command.set_defaults(run=run)
    return parser


def _artifact_word(parser: ArgumentParser, **more: Any) -> None:
    parser.add_argument("--artifact", required=True, type=Path, metavar="DIR", **{"help": "the artifact's folder", **more})


def _number(word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word)):
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number above 0")
    return int(word)


def _predict_words(parser: ArgumentParser) -> None:
    _artifact_word(parser, action="append", help="an artifact's folder; repeat it for more tasks on the same backbone")
    parser.add_argument("--input", default="-", metavar="FILE", help="the rows (default: -, stdin)")
    parser.add_argument("--output", default="-", metavar="FILE", help="the predictions (default: -, stdout)")
    parser.add_argument("--task", metavar="NAME", help="the task of rows that name none")
    parser.add_argument("--skip-bad", action="store_true", help="leave malformed rows out, say so on stderr and go on")
    parser.add_argument("--backbone", metavar="SOURCE",
                        help=f"where the backbone is, if not where the artifacts say: {SOURCE}; its weights must be the same")
    parser.add_argument("--batch-tokens", type=_number, default=4096, metavar="N",
                        help="tokens of a batch, with padding (default: %(default)s)")
    parser.add_argument("--max-length", type=_number, metavar="N",
                        help="tokens of a window (default: as each task was trained); a longer text is read in several, which "
                             "then overlap by a quarter")
    parser.add_argument("--chunk-rows", type=_number, default=512, metavar="N",
                        help="rows read before the first of them is answered (default: %(default)s)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32",
                        help="in what the backbone computes (default: %(default)s); bfloat16 is for GPUs")


def predict(given: Namespace) -> None:
    """Predict rows: JSON objects, one a line, each with the keys that its task asks for, "task" (the name of a head; not needed
    where the artifacts have one) and perhaps "id". For instance

        {"task": "ner", "tokens": ["Ada", "went", "to", "Bonn"]}
        {"task": "qa", "question": "Who went to Bonn?", "context": "Ada went to Bonn.", "id": 17}

    For each row comes one line, in the same order: its id (or its number, from 0), task and result. Rows are read and answered in
    chunks, so a file may be of any size and a pipe without end. An output file appears when it is whole, or not at all.
    Exits with 1, naming line and remedy, where a row is malformed; --skip-bad goes on without it.
    """
    notes: Counter[str] = Counter()

    def skip(error: UserError) -> None:
        notes["rows skipped"] += 1
        for problem in error.problems:
            print(f"skipped: {problem}", file=sys.stderr)

    with _reading(given.input) as (stream, name), _writing(given.output) as write:
        import torch

        from pipeline.predictor import load

        predictor = load(given.artifact, _moved(given), dtype=getattr(torch, given.dtype), max_length=given.max_length)
        if given.task not in (None, *predictor.tasks):
            raise UserError(f"--task: the artifacts have no task {given.task!r}{did_you_mean(given.task, predictor.tasks)}")
        rows = _rows(stream, name, {"task": given.task} if given.task else {})
        on_bad: Literal["skip", "raise"] = "skip" if given.skip_bad else "raise"
        for prediction in predictor.predict(rows, given.batch_tokens, on_bad, skip, given.chunk_rows):
            write(json.dumps(prediction.asdict(), ensure_ascii=False, allow_nan=False) + "\n")
    for what, count in (notes + predictor.counts).items():
        print(f"{what}: {count}", file=sys.stderr)


def _moved(given: Namespace) -> "BackboneParams | None":
    """The backbone at --backbone, with the hash that the first artifact gives."""
    from pipeline.manifest import load_config

    return _backbone(given.backbone, load_config(given.artifact[0]).backbone.sha256) if given.backbone else None


def _backbone(source: str, digest: str | None) -> "BackboneParams":
    from pipeline.config import parse
    from pipeline.source import BackboneParams

    return parse(BackboneParams, {"source": source, "sha256": digest}, "--backbone")


@contextmanager
def _reading(place: str) -> Iterator[tuple[BinaryIO, str]]:
    """A file or stdin, and its name in messages."""
    if place == "-":
        yield sys.stdin.buffer, "stdin"
        return
    try:
        stream = Path(place).open("rb")  # noqa: SIM115  (an error in the block is none of opening)
    except OSError as error:
        raise UserError(f"--input: {place} cannot be read: {error.strerror}; give a file of JSON lines") from None
    with stream:
        yield stream, place


def _rows(stream: BinaryIO, name: str, default: Row) -> Iterator[Row | UserError]:
    """The rows in lines of JSON; for a line that holds none, the error that says why. Blank lines are skipped."""
    for number, raw in enumerate(stream, start=1):
        where = f"{name}:{number}"
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            value = json.loads(text) if text else None
        except UnicodeDecodeError as error:
            yield UserError(f"{where}: {not_utf8(error)}")
        except json.JSONDecodeError as error:
            yield UserError(f"{where}: not valid JSON at column {error.colno}: {error.msg}; each line is one JSON object")
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, a list in a list in a list ...
            yield UserError(f"{where}: cannot be read as JSON: {error}; each line is one JSON object")
        else:
            if isinstance(value, dict):
                yield {**default, **value, "where": where}
            elif text:
                yield UserError(f"{where}: found {text[:40]!r}, expected a mapping; each line is one JSON object")


@contextmanager
def _writing(place: str) -> Iterator[Callable[[str], None]]:
    """What writes a line: to a file that appears when all are in it; to stdout, or what is no file, at once and as a whole."""
    if place == "-":
        yield lambda line: _write(sys.stdout.buffer, line)
        return
    path = Path(place)
    try:
        if path.is_file() or not path.exists():
            with _beside(path.resolve()) as file:  # resolved: a link stays one
                yield lambda line: _fill(file, line)
        else:
            with path.open("wb") as file:
                yield lambda line: _write(file, line)
    except OSError as error:
        raise UserError(f"--output: {place} cannot be written: {error.strerror or error}; give another file") from None


@contextmanager
def _beside(path: Path) -> Iterator[BinaryIO]:
    """A file to fill, which becomes `path` when the block ends, and vanishes when it raises."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".tmp-{path.name}.") as folder:
        with (Path(folder) / path.name).open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(file.name, path)


def _fill(file: BinaryIO, line: str) -> None:
    file.write(line.encode())


def _write(stream: BinaryIO, line: str) -> None:
    stream.write(line.encode())
    stream.flush()


def _inspect_words(parser: ArgumentParser) -> None:
    parser.add_argument("artifact", type=Path, metavar="DIR", help="the artifact's folder")
    parser.add_argument("--json", action="store_true", help="print its config.json as it was read, for programs")


def inspect(given: Namespace) -> None:
    """Show what an artifact is: arm, backbone, prompt, tasks and their classes, how much was trained, where it comes from."""
    from rich.console import Console

    from pipeline.manifest import load_config

    config = load_config(given.artifact)
    if given.json:
        print(json.dumps(dataclasses.asdict(config), sort_keys=True, indent=2, ensure_ascii=False))
    else:
        Console(highlight=False).print(_described(given.artifact, config))


def _described(folder: Path, config: "ArtifactConfig") -> "Table":
    from rich.table import Table
    from rich.text import Text

    lines = [("arm", f"{config.arm} (format {config.format})"),
             ("backbone", f"{config.backbone.source}: {config.model_type}, hidden size {config.hidden_size}"),
             ("sha256", config.backbone.sha256 or "not given; the hub's revision says which weights"),
             ("prompt", _prompt_in_words(config)), ("trained", _trained_in_words(folder, config))]
    for name, head in config.heads.items():
        limits = "".join(f"; {key} {value:.4g}" for key, value in head.thresholds.items())
        limits += f"; windows of {head.max_length} tokens" if head.max_length else ""
        lines.append((f"task {name}", f"{head.type}, {len(head.classes)} {head.kind}: {', '.join(head.classes)}{limits}"))
    lines += [(f"file {path.name}", size_of(path)) for path in sorted(folder.glob("*.*")) if path.is_file()]
    lines += [(key, _in_words(value)) for key, value in sorted(config.provenance.items())]
    table = Table(title=str(folder), show_header=False)
    for name, value in lines:
        table.add_row(Text(name, no_wrap=True), Text(value, overflow="fold"))  # Text: "[...]" in a value is no markup
    return table


def _prompt_in_words(config: "ArtifactConfig") -> str:
    if config.prompt_shape is None:
        return "none"
    if config.arm == "soft_prompt":
        return f"{config.prompt_shape[0]} vectors in front of the input"
    layers, _, heads, count, size = config.prompt_shape
    said = [f"{count} virtual tokens in layers {config.first_layer} to {config.first_layer + layers - 1}",
            f"{heads} key/value heads of size {size}"]
    extra = {"shifts the text by {} positions": config.position_offset, "computed by an MLP of {} units": config.projection,
             "factors of rank {} for each task": config.factor_rank}
    return "; ".join(said + [text.format(value) for text, value in extra.items() if value])


def _trained_in_words(folder: Path, config: "ArtifactConfig") -> str:
    """Without the projection: once trained, it is only another way to write the prompt."""
    counts = {part: _numbers_in(folder / f"{part}.safetensors") for part in ("prompt", "factors", "heads", "backbone")}
    total, whole = sum(counts.values()), _backbone_numbers(config.backbone)
    share = f", {100 * total / whole:.2f} % of the backbone's {whole:,}" if whole else ""
    return f"{total:,} numbers{share} ({', '.join(f'{part} {count:,}' for part, count in counts.items() if count)})"


def _numbers_in(path: Path) -> int:
    from safetensors import SafetensorError, safe_open

    if not path.exists():
        return 0
    try:
        with safe_open(path, "numpy") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118  (it is no mapping)
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error}); make the artifact again") from None


def _backbone_numbers(params: "BackboneParams") -> int | None:
    """How many numbers a backbone has; None where its files are not on this machine."""
    import torch
    from transformers import AutoConfig, AutoModel

    from pipeline.source import locate

    auto: Any = AutoModel
    if params.source.startswith("hub:"):  # it may be a download of gigabytes
        return None
    try:
        folder = locate(params)
    except UserError:
        return None
    with torch.device("meta"):  # shapes without numbers
        model: Any = auto.from_config(AutoConfig.from_pretrained(folder, local_files_only=True))
    model.pooler = None  # as in pipeline.backbone
    return sum(int(parameter.numel()) for parameter in model.parameters())


def _in_words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_in_words, value)) or "none"
    if not isinstance(value, dict):
        return str(value)
    return ", ".join(f"{key} ({_in_words(inner)})" if isinstance(inner, dict) else f"{key} {_in_words(inner)}"
                     for key, inner in value.items())


def _export_words(parser: ArgumentParser) -> None:
    parser.add_argument("--to", required=True, choices=("peft",), help="whose format")
    _artifact_word(parser)
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the folder to write")
    parser.add_argument("--task", metavar="NAME", help="whose prompt, where tasks have factors of their own on a shared one")
    parser.add_argument("--base-model", metavar="NAME",
                        help="what the written config names as its base model (default: the backbone's hub id or folder)")
    parser.add_argument("--verify", action="store_true",
                        help="run peft itself (which must be installed) and ours on the same text, and compare hidden states")

def export(given: Namespace) -> None:
    """Write an artifact's deep prompt as an adapter of peft (PREFIX_TUNING). Heads stay behind: peft has no such heads."""
    from pipeline import exchange
    from pipeline.artifact import load_prompt
    from pipeline.backbone import Backbone
    from pipeline.manifest import load_config
    from pipeline.prompt import DeepPrompt
    from pipeline.source import locate

    config = load_config(given.artifact)
    folder = locate(config.backbone)
    backbone = Backbone.load(folder)
    prompt = load_prompt(given.artifact, config, config.backbone, backbone, given.task)
    if not isinstance(prompt, DeepPrompt):
        raise UserError(f"{given.artifact}: arm is {config.arm!r}, which has no deep prompt; export one that has")
    exchange.to_peft(given.output, prompt, backbone, given.base_model or _base_model(config.backbone, folder))
    say_wrote(given.output)
    if given.verify:
        worst = exchange.verify(given.output, prompt, backbone, folder, *_some_text(folder))
        say(f"verified: peft's hidden states and ours differ by {worst:.1e} at most")


def _some_text(folder: Path) -> tuple["Tensor", "Tensor"]:
    """Two sentences of unequal length as `input_ids` and `attention_mask`."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    from pipeline.tokenizer import Tokenizer

    tokenizer = Tokenizer(folder)
    texts = tokenizer.texts(["Both must see the same in this sentence.", "And in this."])
    ids = [torch.tensor([*tokenizer.prefix, *text, *tokenizer.suffix]) for text, _ in texts]
    return pad_sequence(ids, True, tokenizer.pad), pad_sequence([torch.ones_like(one) for one in ids], True)


def _base_model(params: "BackboneParams", folder: Path) -> str:
    kind, name = params.source.split(":", 1)
    return name.split("@")[0] if kind == "hub" else str(folder)


def _import_words(parser: ArgumentParser) -> None:
    parser.add_argument("--from", required=True, dest="origin", choices=("peft", "ptuning_v2"), help="whose format")
    parser.add_argument("--input", required=True, type=Path, metavar="PATH",
                        help="peft: the adapter's folder; ptuning_v2: the checkpoint's file, as safetensors")
    parser.add_argument("--backbone", required=True, metavar="SOURCE", help=f"what it was trained on: {SOURCE}")
    parser.add_argument("--sha256", metavar="HEX", help="of the backbone's model.safetensors; only a hub revision goes without")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="the artifact to write")


def import_(given: Namespace) -> None:
    """Make an artifact of a prefix-tuning adapter of peft, or of a checkpoint of the P-tuning v2 repository. It has no heads: put
    it under artifacts/imported/NAME, and let a task in params.yaml `start: imported/NAME`.
    """
    from pipeline import exchange
    from pipeline.artifact import save_artifact
    from pipeline.backbone import Backbone
    from pipeline.manifest import ArtifactConfig
    from pipeline.model import Heads, PromptedModel
    from pipeline.source import locate

    params = _backbone(given.backbone, given.sha256)
    backbone = Backbone.load(locate(params))
    prompt = {"peft": exchange.from_peft, "ptuning_v2": exchange.from_ptuning_v2}[given.origin](given.input, backbone)
    names = {"peft": ("adapter_config.json", "adapter_model.safetensors"), "ptuning_v2": ("",)}[given.origin]
    files = [given.input / name for name in names]
    config = ArtifactConfig(
        "deep_prompt", params, backbone.config.model_type, backbone.hidden_size, heads={}, prompt_shape=prompt.shape,
        first_layer=prompt.first_layer, position_offset=prompt.position_offset,
        provenance={"imported_from": given.origin, "files": {file.name: sha256(file) for file in files}})
    unused = Heads(["classes"], [1], backbone.hidden_size, 0)
    save_artifact(given.output, PromptedModel(backbone, prompt, unused, train_backbone=False), config)
    say_wrote(given.output)


def _publish_words(parser: ArgumentParser) -> None:
    _artifact_word(parser)
    parser.add_argument("--repo", required=True, metavar="OWNER/NAME", help="the hub's repository; made if it is not there")
    parser.add_argument("--private", action="store_true", help="make it private, if it is made now")


def publish(given: Namespace) -> None:
    """Upload an artifact's folder, such as models/TASK, to the Hugging Face hub. Log in before, by `hf auth login` or a token
    in HF_TOKEN.

    A prompt learns from the texts it was trained on: see the licenses in its README.md.
    """
    from huggingface_hub import HfApi, get_token

    from pipeline.manifest import load_config

    load_config(given.artifact)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", given.repo):
        raise UserError(f"--repo: found {given.repo!r}; write OWNER/NAME")
    if not (given.artifact / "README.md").exists():
        raise UserError(f"--artifact: {given.artifact} has no README.md, the model card that says what it learned from; "
                        "publish what the stage release made (models/TASK), or write one")
    if get_token() is None:
        raise UserError("publish: there is no token for the hub; log in with `hf auth login`, or set HF_TOKEN")
    api = HfApi()
    try:
        api.create_repo(given.repo, private=given.private, exist_ok=True)
        where = api.upload_folder(repo_id=given.repo, folder_path=given.artifact, commit_message="Upload a deep-prompt artifact",
                                  allow_patterns=["*.json", "*.safetensors", "README.md"])
    except Exception as error:  # the hub's library raises those of its HTTP library too, which have no class in common
        raise UserError(f"publish: {given.repo}: {str(error).splitlines()[0]}; check network, token and name") from error
    say(f"published {given.artifact}: {where}")


if __name__ == "__main__":
    main()
