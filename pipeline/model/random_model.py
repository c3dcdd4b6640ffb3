"""A model with the architecture of a pretrained model and random weights.

It is the control of a trained prompt: a score that a prompt also reaches on random weights says
nothing about what the pretrained weights know (Zhang & Bowman 2018; Hewitt & Liang 2019).
"""

import hashlib
from typing import Any

import torch
import transformers

from pipeline.pretrained.random_weights import RandomWeights
from pipeline.seeding import Stream, torch_seed


def random_model(
    auto_class: Any, config: Any, seed: int, **options: Any
) -> tuple[Any, RandomWeights]:
    """A model of `auto_class` with the initial weights of transformers, in float32.

    The weights are random as the model's class and `config` initialize them: matrices and
    embeddings from the distribution of the config, norms and biases with constants, and tied
    weights stay tied. `options` are those of `from_config`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(torch_seed(seed, Stream.RANDOM_BACKBONE))
        # A config may record the type of the pretrained weights. Numbers of another type differ.
        model = auto_class.from_config(config, dtype=torch.float32, **options)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return model, RandomWeights(seed, _digest(model), versions)


def _digest(model: torch.nn.Module) -> str:
    """The SHA-256 of the names and values of all parameters."""
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()
