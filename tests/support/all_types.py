"""Deep prompts on a tiny random model of every text type of transformers.

`python -m tests.support.all_types FILE` writes the outcomes as JSON: model type -> ADMITTED, or the
reason why not. Each model gets a process with limits of memory and time, because the sizes of some
configs have names of their own, and their models stay large.
"""

import json
import multiprocessing
import re
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.model.pretrained_model import quiet_transformers
from pipeline.pretrained.families import FAMILIES, family_of

MEMORY_BYTES, SECONDS = 4 << 30, 5  # of CPU time
LAYERS, HIDDEN, HEADS, KEY_HEADS, HEAD, INNER = 3, 256, 4, 2, 64, 96
# The names that the configs give to their sizes.
SIZES: dict[str, Any] = {
    **dict.fromkeys(
        ("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size"), HIDDEN
    ),
    **dict.fromkeys(
        ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"), LAYERS
    ),
    **dict.fromkeys(("decoder_layers", "num_decoder_layers"), LAYERS),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"), HEADS
    ),
    **dict.fromkeys(("decoder_attention_heads",), HEADS),
    **dict.fromkeys(("head_dim", "d_kv"), HEAD),
    **dict.fromkeys(("intermediate_size", "d_ff", "ffn_dim", "n_inner", "hidden_dim"), INNER),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "moe_intermediate_size"), INNER),
    **dict.fromkeys(("shared_expert_intermediate_size", "intermediate_size_mlp"), INNER),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group", "n_shared_experts", "moe_num_shared_experts"), 1),
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 64),
    **dict.fromkeys(("max_position_embeddings", "n_positions"), 64),
    **dict.fromkeys(("initializer_range", "init_std", "initializer_factor"), 0.05),
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_size_per_layer_input": 4,
}


OWN_SIZES: dict[str, dict[str, Any]] = {
    "gpt_neo": {"num_layers": 4, "attention_types": [[["global", "local"], 2]]},
}


def text_types() -> list[str]:
    """The model types whose base model takes the token ids of a text, and no images or sounds.

    Families with a reference test are not among them.
    """
    return sorted(
        name
        for name, classes in MODEL_MAPPING_NAMES.items()
        if name not in FAMILIES and _takes_text(classes)
    )


def _takes_text(names: str | Sequence[str]) -> bool:
    model_class = getattr(transformers, names if isinstance(names, str) else names[0], None)
    try:
        return (
            model_class is not None
            and model_class.main_input_name == "input_ids"
            and model_class.input_modalities in ("text", ["text"], ("text",))
        )
    except ImportError:  # It needs a library for sounds or images.
        return False


def save_tiny_model(model_type: str, folder: Path, key_heads: int = KEY_HEADS) -> None:
    """Save a random model of few layers, with norms and biases that are not trivial."""
    config_class = CONFIG_MAPPING[model_type]
    known = {*config_class().to_dict(), *config_class.attribute_map}
    sizes = SIZES | dict.fromkeys(("num_key_value_heads", "num_kv_heads"), key_heads)
    if family_of(model_type).first_position:
        sizes["pad_token_id"] = 1
    sizes |= OWN_SIZES.get(model_type, {})
    config = config_class(**{name: size for name, size in sizes.items() if name in known})
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)
    model.save_pretrained(folder)


ADMITTED = "admitted"
NOT_RUN = "not run: "  # there is no tiny model


def outcome(model_type: str) -> str:
    """ADMITTED, or the reason why not."""
    result = _outcome(model_type, KEY_HEADS)
    if NOT_RUN in result or "fails: RuntimeError" in result:
        result = _outcome(model_type, HEADS)  # Some models have a key for each query.
    return result


def _outcome(model_type: str, key_heads: int) -> str:
    with TemporaryDirectory() as name:
        try:
            with quiet_transformers():
                save_tiny_model(model_type, Path(name), key_heads)
        except UserError as error:
            return _reason(error)
        except Exception as error:  # of code that is not ours
            return f"{NOT_RUN}{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        try:
            Backbone.load(Path(name))
        except UserError as error:
            return _reason(error)
    return ADMITTED


def _reason(error: UserError) -> str:
    """The message without the beginning and the remedy, which are those of all types."""
    beginnings = r".*deep prompts do not work on \S+ models \(|.*deep prompts .* model: |backbone: "
    endings = r"\); use one of .*|; use another backbone|: this .* model is not admitted.*"
    return "; ".join(
        re.sub(endings, "", re.sub(f"^({beginnings})", "", problem)) for problem in error.problems
    )


def _limited(model_type: str, results: Any) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    torch.set_num_threads(1)
    results.put(outcome(model_type))


def run(model_type: str) -> str:
    """The outcome of a type in a process of its own."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    process = context.Process(target=_limited, args=(model_type, results))
    process.start()
    process.join()
    if results.empty():
        return (
            f"{NOT_RUN}the model needs more than {MEMORY_BYTES >> 30} GB or {SECONDS} s of CPU time"
        )
    return str(results.get())


def main(path: Path, types: list[str]) -> None:
    """Write the outcomes of all types."""
    outcome("bert")  # imports libraries that all processes then share
    outcomes = {}
    for model_type in types or text_types():
        outcomes[model_type] = run(model_type)
        print(f"{model_type}: {outcomes[model_type]}", flush=True)
    path.write_text(json.dumps(outcomes, sort_keys=True, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
