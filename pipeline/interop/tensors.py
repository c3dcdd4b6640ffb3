"""Tensors in files of other libraries: read without pickle, checked against the backbone."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.errors import UserError
from pipeline.model.backbone import Backbone


def table_width(backbone: Backbone) -> int:
    """Width 2 L H D of a prompt table [P, 2 L H D]."""
    layers, two, heads, _, size = backbone.prompt_shape(0)
    return layers * two * heads * size


def read_tensors(path: Path, name_part: str) -> tuple[list[str], dict[str, Tensor]]:
    """Read the tensors whose names contain `name_part`; returns the names of all tensors, too.

    Raises UserError if the file is unreadable, not safetensors, or a pickle.
    """
    pickled = path.parent / f"{path.stem}.bin"
    if path == pickled or (pickled.exists() and not path.exists()):
        target = path.with_name(path.stem.removeprefix("pytorch_") + ".safetensors")
        code = (
            "import torch, safetensors.torch as s; "
            f"t = torch.load('{pickled}', map_location='cpu'); "
            f"s.save_file({{n: t[n].contiguous() for n in t if '{name_part}' in n}}, '{target}')"
        )
        raise UserError(
            f"{pickled}: is a pickle, and a pickle can run code when it is loaded; convert it to "
            f"{target.name}, in the environment that made it, with\n"
            f'python -c "{code}"\nand give that file'
        )
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            return names, {name: file.get_tensor(name) for name in names if name_part in name}
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a safetensors file ({error}); copy or download it again"
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror or error}; give the path of a readable file"
        ) from None


def shape_problems(
    path: Path, tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]
) -> list[str]:
    """Problems of `tensors`, which must have `shapes` and a dtype that float32 can represent."""
    problems = []
    for name, shape in shapes.items():
        if name not in tensors:
            problems.append(f"{path}: has no tensor {name}; give a file with a prompt")
        elif tuple(tensors[name].shape) != shape:
            problems.append(
                f"{path}: the shape of {name} is {tuple(tensors[name].shape)}, but the backbone "
                f"needs {shape}; use the backbone it was made for"
            )
        elif tensors[name].dtype not in (torch.float32, torch.float16, torch.bfloat16):
            problems.append(
                f"{path}: {name} is {tensors[name].dtype}, which float32 cannot represent; "
                "save it as float32"
            )
    return problems
