"""One artifact with the methods that models have on the Hugging Face hub."""

from pathlib import Path
from typing import Any, Self

import deep_prompt
from pipeline.artifacts.location import FILES, locate_artifact
from pipeline.errors import UserError
from pipeline.files import copy_file
from pipeline.inference.predictor import Predictor
from pipeline.interop.hub import (
    COMMIT_MESSAGE,
    artifact_files,
    check_repo,
    check_upload,
    upload,
)
from pipeline.pretrained.location import hub_folder

_CONFIG = "config.json"


class Model:
    """One artifact with the methods that models have on the Hugging Face hub.

    `folder` has its files, and `predictor` is that of `deep_prompt.load`, which also loads several
    artifacts on one backbone.
    """

    def __init__(self, folder: Path, predictor: Predictor) -> None:
        self.folder, self.predictor = folder, predictor

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.folder}: {self.predictor!r}>"

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
        **options: Any,
    ) -> Self:
        """Load an artifact: a folder, zoo:NAME, or OWNER/NAME on the hub.

        `revision` is a commit, tag or branch of the hub (None: the newest commit of main); the
        options up to `local_files_only` are those of huggingface_hub. The cache of the hub is used.
        `options` are those of `deep_prompt.load`.

        Raises UserError if the download fails, if a folder or a name of the zoo has a revision, and
        as `deep_prompt.load` does.
        """
        if Path(name).exists() or str(name).startswith(("zoo:", "hub:")):
            if revision is not None:
                raise UserError(f"revision is {revision!r}, but {name} has none; leave it out")
            folder = locate_artifact(name)
        else:
            check_repo(str(name))
            folder = hub_folder(
                f"{name}@{revision or 'main'}",
                FILES,
                "artifact",
                token=token,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
            )
        return cls(folder, deep_prompt.load(folder, **options))

    def __call__(self, inputs: Any, **options: Any) -> Any:
        """Predict a text, a row, a list of these, or a pandas frame: see `Predictor.__call__`."""
        return self.predictor(inputs, **options)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write the files of the artifact to a folder, which `from_pretrained` can load.

        Other files in the folder stay. If the process is killed, the folder has no config.json, so
        it is not taken for an artifact. Raises UserError if other files would be part of the
        artifact, such as the weights of an artifact of another arm.
        """
        folder = Path(save_directory)
        if folder.exists() and folder.samefile(self.folder):
            return
        files = artifact_files(self.folder)
        names = {file.name for file in files}
        if foreign := [file.name for file in artifact_files(folder) if file.name not in names]:
            raise UserError(
                f"{folder}: has {', '.join(foreign)}, which {self.folder} does not have; give "
                "another folder, or remove the files"
            )
        (folder / _CONFIG).unlink(missing_ok=True)
        for file in sorted(files, key=lambda file: file.name == _CONFIG):
            copy_file(file, folder / file.name)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = COMMIT_MESSAGE,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Upload the artifact to OWNER/NAME, as `deep-prompt publish` does without a git commit.

        The repository is created if it does not exist, for its owner only if it is `private`.
        Returns the address of the hub's commit. Raises UserError if there is no model card or no
        token, or if the hub refuses.
        """
        check_upload(self.folder, repo_id, token)
        return upload(
            self.folder, repo_id, private=private, token=token, commit_message=commit_message
        )
