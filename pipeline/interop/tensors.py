"""The tensors in other libraries' files: read without unpickling, and checked against the backbone."""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from pipeline.errors import UserError
from pipeline.model.backbone import Backbone


def table_width(backbone: Backbone) -> int:
    """2 L H D."""
    layers, two, heads, _, size = backbone.prompt_shape(0)
    return layers * two * heads * size


def read_tensors(path: Path, part: str) -> tuple[list[str], dict[str, Tensor]]:
    """The names of all tensors in a file, and those with `part` in their name. Raises UserError: unreadable, pickled."""
    pickled = path.parent / f"{path.stem}.bin"
    if path == pickled or (pickled.exists() and not path.exists()):
        safe = path.with_name(path.stem.removeprefix("pytorch_") + ".safetensors")
        code = (
            f"import torch, safetensors.torch as s; t = torch.load('{pickled}', map_location='cpu'); "
            f"s.save_file({{n: t[n].contiguous() for n in t if '{part}' in n}}, '{safe}')"
        )
        raise UserError(
            f"{pickled}: is a pickle, which can run code when it is loaded; go to the environment that made it, make "
            f'{safe.name} with\npython -c "{code}"\nand give that'
        )
    try:
        with safe_open(path, "pt") as file:
            names = list(file.keys())
            return names, {name: file.get_tensor(name) for name in names if part in name}
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error}); get it again") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror or error}; give the path of a readable file"
        ) from None


def shape_problems(
    path: Path, tensors: dict[str, Tensor], shapes: dict[str, tuple[int, ...]]
) -> list[str]:
    """What is wrong with tensors that should have some shapes, and numbers that float32 can hold."""
    problems = []
    for name, shape in shapes.items():
        if name not in tensors:
            problems.append(f"{path}: holds no {name}; give a file with a prompt")
        elif tuple(tensors[name].shape) != shape:
            problems.append(
                f"{path}: the shape of {name} is {tuple(tensors[name].shape)}, the backbone takes {shape}; "
                "use the backbone it was made for"
            )
        elif tensors[name].dtype not in (torch.float32, torch.float16, torch.bfloat16):
            problems.append(
                f"{path}: {name} is {tensors[name].dtype}, which float32 cannot hold; save it as float32"
            )
    return problems
