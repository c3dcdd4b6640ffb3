"""Put a released task into the zoo:

    python -m zoo.add TASK

Run it in the project that released the task (`presets/zoo.yaml`). It copies models/TASK to zoo/TASK
beside this file, and lists the sha256 of the files in README.md.
"""

import shutil
import sys

from pipeline.artifacts.zoo import ZOO
from pipeline.files import atomic_folder, sha256
from stages.runtime.paths import MODELS


def add(task: str) -> None:
    """Write zoo/TASK."""
    with atomic_folder(ZOO / task) as output:
        for file in MODELS.joinpath(task).iterdir():
            shutil.copyfile(file, output / file.name)
        hashes = "\n".join(
            f"    {sha256(file)}  {file.name}"
            for file in sorted(output.iterdir())
            if file.name != "README.md"
        )
        with (output / "README.md").open("a", encoding="utf-8") as card:
            card.write(f"\n## Files\n\nsha256:\n\n{hashes}\n")


if __name__ == "__main__":
    add(sys.argv[1])
