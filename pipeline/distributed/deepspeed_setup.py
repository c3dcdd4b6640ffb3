"""DeepSpeed, told before it is imported what it runs on: else it guesses, and warns of having guessed."""

import os
import warnings

import torch

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed

warnings.filterwarnings(
    "ignore", r"`torch.distributed.\w+` is deprecated", FutureWarning
)  # what DeepSpeed calls

__all__ = ["deepspeed"]
