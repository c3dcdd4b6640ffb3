"""Loading of a pretrained model from a folder, by the classes of transformers."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForTextEncoding,
)
from transformers.utils import logging as _logging

from pipeline.errors import UserError, first_line
from pipeline.model.attention import ATTENTION
from pipeline.model.encoder_decoder import EncoderDecoder, IdentityBody, SequenceToSequenceHead
from pipeline.model.random_model import random_model
from pipeline.pretrained.families import ENCODER_DECODERS, FAMILIES, Family, family_of
from pipeline.pretrained.random_weights import RandomWeights


def load_model(
    folder: Path, lm_head: bool, decoder: bool, dtype: torch.dtype, random_seed: int | None
) -> tuple[Any, Family, list[str], RandomWeights | None]:
    """The model in a folder, the record of its family, and the names of missing weights.

    With `random_seed`, the weights are random, and their record is the last value. The weights of a
    family without reference test are float32, because its checks need it.
    """
    with quiet_transformers():
        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            family = family_of(config.model_type, decoder)
            if config.model_type in ENCODER_DECODERS.keys() - FAMILIES and not decoder:
                raise UserError(
                    f"backbone: deep prompts do not work on this {config.model_type!r} model: it "
                    "is an encoder-decoder, and only the whole of it works; set decoder: true for "
                    "the backbone"
                )
            dtype = torch.float32 if family.route == "traced" else dtype
            auto_class, missing, random_weights = auto_class_of(family, lm_head), [], None
            if random_seed is not None:
                model, random_weights = random_model(
                    auto_class, config, random_seed, attn_implementation=ATTENTION
                )
            else:
                model, loading_info = auto_class.from_pretrained(
                    folder,
                    attn_implementation=ATTENTION,
                    local_files_only=True,
                    use_safetensors=True,
                    dtype=dtype,
                    output_loading_info=True,
                )
                missing = list(loading_info["missing_keys"])
        except (OSError, ValueError, KeyError) as error:
            if error.args == (ATTENTION,):
                raise UserError(
                    f"{folder}: deep prompts do not work on this {config.model_type!r} model: its "
                    "classes do not use the attention interface of transformers; use another "
                    "backbone"
                ) from error
            raise UserError(
                f"{folder}: cannot load a backbone: {first_line(error)}; "
                "give a folder that save_pretrained wrote, with safetensors"
            ) from error
    # Some models make parameters of their own type, whatever `dtype` is.
    convert_parameters(model, dtype)
    return model, family, missing, random_weights


def auto_class_of(family: Family, lm_head: bool) -> Any:
    """The class of transformers that loads a family."""
    if family.encoder_only and lm_head:
        raise UserError(
            "backbone: the encoder of an encoder-decoder has no language modeling head, which "
            "verbalizers and text generation need; set decoder: true for the backbone, which loads "
            "the decoder too, or use another task"
        )
    if family.encoder_only:
        return AutoModelForTextEncoding
    if not lm_head:
        return AutoModel
    if family.decoder_layers:
        return AutoModelForSeq2SeqLM
    return AutoModelForCausalLM if family.causal else AutoModelForMaskedLM


def convert_parameters(module: nn.Module, dtype: torch.dtype) -> None:
    """Convert the parameters in place, and no buffers."""
    for parameter in module.parameters():
        parameter.data = parameter.data.to(dtype)


def split_lm_head(model: Any) -> tuple[Any, nn.Module]:
    """Split a language model into its body and a module with only its head."""
    if model.config.is_encoder_decoder:
        return EncoderDecoder(model), SequenceToSequenceHead(model)
    body = model.base_model
    setattr(model, model.base_model_prefix, IdentityBody())
    return body, model


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Context manager: hide the progress bars and the reports of unused weights of transformers."""
    logs: Any = _logging
    level, had_progress_bar = logs.get_verbosity(), logs.is_progress_bar_enabled()
    logs.set_verbosity_error()
    logs.disable_progress_bar()
    try:
        yield
    finally:
        logs.set_verbosity(level)
        if had_progress_bar:
            logs.enable_progress_bar()
