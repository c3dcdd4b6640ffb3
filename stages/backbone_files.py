"""backbone_files: the hashes of the backbone's config and tokenizer files.

DVC cannot find a backbone by its source (a package, a folder, or a hub revision), so it runs this
stage in every `dvc repro`. If a file has changed, the output changes, and the stages that depend on
it run again.
"""

from pipeline.files import write_json
from pipeline.pretrained.location import backbone_files as hashes_of
from pipeline.pretrained.location import tokenizer_folder
from stages.runtime.entry import log_wrote, run
from stages.runtime.params import load_params
from stages.runtime.paths import BACKBONE_FILES


def backbone_files() -> None:
    """Write data/backbone_files.json, a dependency for DVC. Stages read the files themselves."""
    write_json(BACKBONE_FILES, hashes())
    log_wrote(BACKBONE_FILES)


def hashes() -> dict[str, str]:
    """The hashes by file name; empty for a hub revision, whose files cannot change."""
    source = load_params().backbone.source
    return {} if source.startswith("hub:") else hashes_of(tokenizer_folder(source))


if __name__ == "__main__":
    run(backbone_files)
