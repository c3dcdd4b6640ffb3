"""zoo: copy the artifacts that ship with the project to artifacts/, for `init_from: zoo/NAME`."""

import shutil

from pipeline.artifacts.zoo import ZOO, zoo_names
from pipeline.files import atomic_folder
from stages.runtime.entry import log_read, log_wrote, run
from stages.runtime.paths import ZOO_ARTIFACTS


def zoo() -> None:
    """Write artifacts/zoo, without the model cards: an edit of one must not retrain a task."""
    log_read(ZOO)
    with atomic_folder(ZOO_ARTIFACTS) as output:
        for name in zoo_names():
            shutil.copytree(ZOO / name, output / name, ignore=shutil.ignore_patterns("*.md"))
    log_wrote(ZOO_ARTIFACTS)


if __name__ == "__main__":
    run(zoo)
