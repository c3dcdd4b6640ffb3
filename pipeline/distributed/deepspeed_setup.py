"""DeepSpeed, imported at its first use: the import takes seconds and changes the environment."""

import os
import warnings
from typing import Any

import torch


def load_deepspeed() -> Any:
    """Import DeepSpeed with its accelerator set; otherwise it guesses the accelerator and warns."""
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")
    import deepspeed  # noqa: PLC0415

    # DeepSpeed calls deprecated functions of torch.
    warnings.filterwarnings("ignore", r"`torch.distributed.\w+` is deprecated", FutureWarning)
    return deepspeed
