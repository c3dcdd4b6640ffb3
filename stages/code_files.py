"""code_files: the code that each stage runs, found by the imports of its module.

A stage depends on its file in the output. An edit of code then reruns the stages that import it.
"""

from pathlib import Path

from pipeline.files import atomic_folder, write_json
from stages.runtime.code_hash import code_files_of
from stages.runtime.entry import log_wrote, run
from stages.runtime.paths import CODE_FILES


def code_files() -> None:
    """Write data/code_files/STAGE.json for each stage: its source files with their sha256.

    The files are dependencies for DVC. Stages read their code itself.
    """
    stages = [path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__"]
    with atomic_folder(CODE_FILES) as temporary:
        for stage in stages:
            write_json(temporary / f"{stage}.json", code_files_of(stage))
    log_wrote(CODE_FILES)


if __name__ == "__main__":
    run(code_files)
