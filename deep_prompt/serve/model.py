"""The served artifacts, their predictor, and its answers."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from deep_prompt.serve.jobs import Answers, Pass, RowAnswer
from pipeline.artifacts.config import ArtifactConfig, load_config
from pipeline.artifacts.zoo import artifact_folder
from pipeline.errors import UserError, did_you_mean
from pipeline.inference.loading import load, load_beside, shares_backbone
from pipeline.inference.predictor import Predictor
from pipeline.inference.prompt_variants import (
    attention_to_prompt,
    prompt_numbers,
    with_prompt_of,
)
from pipeline.mixing.batches import Batch
from pipeline.params import BackboneParams
from pipeline.tasks.base.row import Row

PROMPT = "prompt"  # the key of a row that asks for the prompt of another task
NO_PROMPT = "none"


class ServedArtifacts(NamedTuple):
    """Artifacts by name, and the predictor of all their tasks.

    The files of a served artifact may vanish, so its config is kept.
    """

    folders: Mapping[str, Path]
    configs: Sequence[ArtifactConfig]
    predictor: Predictor


class ServedModel:
    """Answers rows with the artifacts of a server.

    `folders` maps names to folders. An artifact with one head has the name of its task. `backbone`
    is another location of the backbone (None: that of the first artifact). Only the model's thread
    may call the methods, except `can_share` and `load_alone`.
    """

    def __init__(
        self,
        folders: Mapping[str, Path],
        backbone: BackboneParams | None = None,
        batch_tokens: int = 4096,
        dtype: torch.dtype | None = None,
    ) -> None:
        self._backbone, self._batch_tokens, self._dtype = backbone, batch_tokens, dtype
        self._passes: list[Pass] = []
        self.serve(self.load_alone(folders))

    def answer(self, rows: Sequence[Row]) -> Answers:
        """Answer rows of any tasks, each with a prediction or with its error.

        A row has its number in `where`. Rows with the key `prompt` are answered under the prompt of
        another task, or under none, in passes of their own.
        """
        self._passes = []
        answers: list[RowAnswer | None] = [None] * len(rows)
        for name in dict.fromkeys(map(_prompt_of, rows)):
            numbers = [number for number, row in enumerate(rows) if _prompt_of(row) == name]
            for number, answer in zip(numbers, self._under(name, rows, numbers), strict=True):
                answers[number] = answer
        return Answers([answer for answer in answers if answer is not None], self._passes)

    def write(self, row: Row, on_text: Callable[[str], object]) -> RowAnswer:
        """Answer a row of a task that generates text.

        `on_text` is called with each piece of the text as soon as its tokens are chosen.
        """
        (answer,) = self._under(_prompt_of(row), [row], [0], on_text)
        return answer

    def _under(
        self,
        name: str,
        rows: Sequence[Row],
        numbers: Sequence[int],
        on_text: Callable[[str], object] | None = None,
    ) -> list[RowAnswer]:
        """The answers to the rows with these numbers, under the prompt `name` ("": their own)."""
        try:
            predictor = self._variant(name)
        except UserError as error:
            return [UserError(f"{rows[number]['where']}: {error}") for number in numbers]
        errors: list[UserError] = []
        # Numbers as ids tell which rows have no prediction; `errors` has theirs in order.
        numbered = [
            {**{key: value for key, value in rows[number].items() if key != PROMPT}, "id": number}
            for number in numbers
        ]
        found = {
            prediction.id: prediction
            for prediction in predictor.predict(
                numbered,
                self._batch_tokens,
                "skip",
                errors.append,
                chunk=len(numbered),
                on_text=on_text,
            )
        }
        remaining = iter(errors)
        return [found[number] if number in found else next(remaining) for number in numbers]

    def _variant(self, name: str) -> Predictor:
        if not name:
            return self.served.predictor
        if not any(number is not None for number in prompt_numbers(self.served.predictor).values()):
            raise UserError("prompt: the served artifacts have no deep prompts; leave out the key")
        if name != NO_PROMPT and name not in self.served.predictor.tasks:
            names = [NO_PROMPT, *self.served.predictor.tasks]
            raise UserError(f"prompt: no task {name[:40]!r}{did_you_mean(name, names)}")
        if name not in self._variants:
            task = None if name == NO_PROMPT else name
            self._variants[name] = self._watch(with_prompt_of(self.served.predictor, task))
        return self._variants[name]

    def attention(self, row: Row) -> dict[int, list[float]]:
        """Layer -> for each head, the share of attention on the prompt (see the probes)."""
        self._passes = []
        return attention_to_prompt(self.served.predictor, row)

    def warm_up(self, rows: Sequence[Row]) -> None:
        """Answer rows, so that the first request is fast. Raises the error of a row, if any."""
        for answer in self.answer(rows).answers:
            if isinstance(answer, UserError):
                raise answer

    def can_share(self, folders: Mapping[str, Path]) -> bool:
        """Whether other artifacts can share the backbone in memory with the present ones.

        Any thread may call this method.
        """
        configs = [*self.served.configs, *map(load_config, folders.values())]
        return all(map(shares_backbone, configs))

    def load_alone(self, folders: Mapping[str, Path]) -> ServedArtifacts:
        """Load artifacts with a backbone of their own. Any thread may call this method."""
        return self._served(folders, load(folders, self._backbone, dtype=self._dtype))

    def load_beside(self, folders: Mapping[str, Path]) -> ServedArtifacts:
        """Load artifacts on the backbone in memory."""
        params = self._backbone or self.served.configs[0].backbone
        beside = load_beside(self.served.predictor, folders, params, self._dtype)
        return self._served(folders, beside)

    def serve(self, artifacts: ServedArtifacts) -> None:
        """Answer with these artifacts from now on."""
        self.served = artifacts
        self._variants: dict[str, Predictor] = {}

    def _served(self, folders: Mapping[str, Path], predictor: Predictor) -> ServedArtifacts:
        configs = [load_config(folder) for folder in folders.values()]
        return ServedArtifacts(dict(folders), configs, self._watch(predictor))

    def _watch(self, predictor: Predictor) -> Predictor:
        """Count the passes of a predictor."""
        predictor.model.register_forward_pre_hook(self._count)
        return predictor

    def _count(self, _module: Any, inputs: tuple[Batch]) -> None:
        (batch,) = inputs
        assert isinstance(batch.tasks, torch.Tensor)
        tokens = int(batch.attention_mask.sum())
        padding = batch.attention_mask.numel() - tokens
        tasks = len(Counter(batch.tasks.tolist()))
        self._passes.append(Pass(len(batch.rows), tasks, tokens, padding))


def _prompt_of(row: Row) -> str:
    return str(row.get(PROMPT) or "")


def named_folders(artifacts: Sequence[Path | str]) -> dict[str, Path]:
    """The folders of artifacts by name: that of the head, or of the folder if it has many heads.

    Raises UserError if a folder has no artifact, or if two have the same name.
    """
    folders: dict[str, Path] = {}
    problems = []
    for artifact in artifacts:
        folder = artifact_folder(artifact)
        heads = load_config(folder).heads
        name = next(iter(heads)) if len(heads) == 1 else folder.resolve().name
        if name in folders:
            problems.append(
                f"--artifact: {folder} has the same name as {folders[name]}, {name!r}; give only "
                "one of them"
            )
        folders[name] = folder
    if problems:
        raise UserError(*problems)
    return folders
