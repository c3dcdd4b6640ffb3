"""A small project for fast tests of the stages.

It has the code of the pipeline, two generated corpora of a few sentences, and a tiny random
backbone.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.files import sha256
from tests.support import fork_server
from tests.support.paths import ROOT

WORDS = 300  # words in the vocabulary; other words are split into characters
TUNING = {
    "prompt_lr": 0.02,
    "head_lr": 0.003,
    "epochs": 0.3,
    "precision": "float32",  # not auto, so that results are the same on every machine
    "tokens_per_micro_batch": 128,
    "validation_rows": 20,
    "num_validations": 2,
}
TRAINING = {**TUNING, "num_virtual_tokens": 4, "micro_batches_per_step": 1}
IN_ONE_PROCESS = """
import importlib, sys
for command in sys.argv[1:]:
    name, *arguments = command.split()
    getattr(importlib.import_module(f"stages.{name}"), name)(*arguments)
"""
TASK = {"max_length": 48, "stride": 8, "test_rows": 20}


def params(sha256: str) -> dict[str, Any]:
    """The params of the project.

    world_srl has raw files. world_ner is generated, and starts from a mixture of only itself.
    """
    return {
        "seed": 7,
        "data_root": "data",
        "backbone": {"source": "folder:backbone", "sha256": sha256},
        "generate": {"corpora": ["ner"], "rows": 40, "seed": 7},
        "tasks": {
            "world_ner": {"source": "world/ner", "init_from": "pretrain/ner_only", **TASK},
            "world_srl": {"source": "raw/srl", "init_from": "pretrain/all", **TASK},
        },
        "mixtures": {
            "all": {"corpora": "all", "temperature": 2.0, "cap": 1000, "weights": {}},
            "ner_only": {"corpora": ["world_ner"], "temperature": 2.0, "cap": 1000, "weights": {}},
        },
        "pretrain": {
            "all": {**TRAINING, "epochs": 0.4, "num_validations": 8},
            "ner_only": dict(TRAINING),
        },
        "arms": {
            "multitask": dict(TUNING),
            "head_only": {k: v for k, v in TUNING.items() if k != "prompt_lr"},
        },
        "compare": {"arms": ["head_only"], "tasks": ["world_ner"]},
        "repeat": {"arms": ["multitask", "head_only"], "tasks": ["world_ner"], "seeds": []},
        "probe": {
            "arms": ["multitask"],
            "tasks": ["world_srl"],
            "rows": 10,
            "typo_rate": 0.2,
            "out_of_domain": [
                {"data": "world_ner", "model": "world_ner", "labels": {"PER": "PER", "LOC": "LOC"}}
            ],
        },
    }


def write_params(folder: Path, values: dict[str, Any]) -> None:
    """Write params.yaml of a project."""
    with (folder / "params.yaml").open("w", encoding="utf-8") as file:
        YAML(typ="safe").dump(values, file)


def make_backbone(folder: Path, corpus: Path, seed: int = 0) -> str:
    """Write a random BERT of two layers; returns the SHA-256 hash of its weights.

    The vocabulary of its tokenizer has the most frequent words of `corpus`.
    """
    import tokenizers
    import torch
    import transformers
    from tokenizers import models, normalizers, pre_tokenizers, processors

    text = (
        " ".join(path.read_text(encoding="utf-8") for path in sorted(corpus.iterdir()))
        .lower()
        .split()
    )
    words = sorted(set(text), key=lambda word: (-text.count(word), word))[:WORDS]
    characters = sorted(set("".join(text)))
    entries = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *characters,
        *(f"##{c}" for c in characters),
        *words,
    ]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(entries))}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )
    fast.save_pretrained(folder)
    torch.manual_seed(seed)
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        pad_token_id=0,
        initializer_range=0.2,
    )
    transformers.BertModel(config).save_pretrained(folder)
    return sha256(folder / "model.safetensors")


def make_decoder(folder: Path, texts: list[str], seed: int = 0) -> str:
    """Write a random Llama of two layers with its LM head; returns the hash of its weights.

    Its tokenizer is trained on `texts`, to bytes and pieces of words.
    """
    import torch
    import transformers

    vocabulary = _make_byte_level_tokenizer(folder, texts, "<s> $A", "<s> $A $B")
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=64,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.2,
        tie_word_embeddings=True,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(folder)
    return sha256(folder / "model.safetensors")


def make_encoder_decoder(folder: Path, texts: list[str], family: str, seed: int = 0) -> str:
    """Write a random BART or T5 with its LM head; returns the hash of its weights.

    Encoder and decoder have two layers each. The tokenizer is that of `make_decoder`, with the
    template of the family.
    """
    import torch
    import transformers

    start = "<s> " if family == "bart" else ""
    vocabulary = _make_byte_level_tokenizer(
        folder, texts, f"{start}$A </s>", f"{start}$A </s> $B </s>"
    )
    torch.manual_seed(seed)
    config: Any
    if family == "bart":
        config = transformers.BartConfig(
            vocab_size=vocabulary,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=48,
            decoder_ffn_dim=48,
            max_position_embeddings=64,
            pad_token_id=0,
            bos_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=1,
            init_std=0.2,
        )
    else:
        config = transformers.T5Config(
            vocab_size=vocabulary,
            d_model=32,
            d_kv=8,
            d_ff=48,
            num_layers=2,
            num_heads=4,
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    auto: Any = transformers.AutoModelForSeq2SeqLM
    auto.from_config(config).save_pretrained(folder)
    return sha256(folder / "model.safetensors")


def _make_byte_level_tokenizer(folder: Path, texts: list[str], single: str, pair: str) -> int:
    """Write a tokenizer of bytes and pieces of words; returns the size of its vocabulary.

    `single` and `pair` are its templates for one segment and two.
    """
    import tokenizers
    import transformers
    from tokenizers import decoders, models, pre_tokenizers, processors, trainers

    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=single, pair=pair, special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    return int(tokenizer.get_vocab_size())


def make_project(folder: Path) -> dict[str, Any]:
    """Write all inputs of the stages to `folder`; returns the values of its params.yaml."""
    from pipeline.world import write_corpus

    for name in ("pipeline", "stages", "deep_prompt", "data_recipes"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "zoo").mkdir()
    (folder / "zoo" / "README.md").write_text("No artifacts.\n")
    for name in ("dvc.yaml", ".dvcignore"):
        shutil.copy(ROOT / name, folder / name)
    write_corpus("srl", folder / "data/raw/srl", 40, 7)
    values = params(make_backbone(folder / "backbone", folder / "data/raw/srl"))
    write_params(folder, values)
    return values


def environment(home: Path, forks: bool = True) -> dict[str, str]:
    """Environment variables of a command: one process, one thread, and no user settings of DVC.

    With `forks`, `python` and `dvc` are forks of a server (fork_server.py), which start seconds
    faster.
    """
    clean = {
        key: value
        for key, value in os.environ.items()
        if key
        not in (
            "RANK",
            "WORLD_SIZE",
            "LOCAL_RANK",
            "CUDA_VISIBLE_DEVICES",
            "DATA_ROOT",
            "PYTHONPATH",
            "PYTHONDONTWRITEBYTECODE",
            "PYTHONUNBUFFERED",
        )
    }
    return clean | {
        "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DVC_SITE_CACHE_DIR": str(home / "site"),
        "DVC_GLOBAL_CONFIG_DIR": str(home / "global"),
        "DVC_SYSTEM_CONFIG_DIR": str(home / "system"),
        "DVC_NO_ANALYTICS": "1",
        **(fork_server.start() if forks else {}),
    }


def python(
    folder: Path, env: dict[str, str], *arguments: str
) -> "subprocess.CompletedProcess[str]":
    """Run `python ARGUMENTS` in `folder`, with the `python` of `env`."""
    return subprocess.run(
        [python_of(env), *arguments],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def python_of(env: dict[str, str]) -> str:
    """The path of `python` in an environment."""
    path = shutil.which("python", path=env["PATH"])
    assert path is not None
    return path


def contents(*folders: Path, pattern: str = "*") -> dict[str, bytes]:
    """Path -> bytes of all files in some folders. Paths are relative to the folder's parent."""
    return {
        str(file.relative_to(folder.parent)): file.read_bytes()
        for folder in folders
        for file in sorted(folder.rglob(pattern))
        if file.is_file()
    }


def project_outputs(folder: Path) -> dict[str, bytes]:
    """Path -> bytes of all outputs of a project. They depend only on params and raw files."""
    names = ("artifacts", "data", "models", "predictions", "report", "results", "runs")
    files = contents(*(folder / name for name in names))
    return {name: content for name, content in files.items() if not name.endswith(".gitignore")}
