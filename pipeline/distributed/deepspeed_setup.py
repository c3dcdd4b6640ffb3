"""Import DeepSpeed with its accelerator set; otherwise it guesses the accelerator and warns."""

import os
import warnings

import torch

os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed

# DeepSpeed calls deprecated functions of torch.
warnings.filterwarnings("ignore", r"`torch.distributed.\w+` is deprecated", FutureWarning)

__all__ = ["deepspeed"]
