"""Evaluation: `pipeline.evaluation.evaluate.decode`, against a plain loop over the same rows, sorted by length, that keeps no prediction."""

from collections.abc import Iterator

import torch

from benchmarks.speed.setting import Corpus, Setting, corpus
from benchmarks.speed.timing import alternate, ratio, table
from benchmarks.speed.ways import ours
from pipeline.evaluation.evaluate import decode
from pipeline.mixing.batches import collate, sorted_rows
from pipeline.model.prompted_model import PromptedModel

ROWS = {"ner": 300, "qa": 30}
BATCH_TOKENS = 2048  # as the stages have it


def run(setting: Setting) -> Iterator[str]:
    """A table of rows a second on both corpora."""
    rows = []
    for kind, count in ROWS.items():
        found = corpus(setting, kind, "validation", count)
        model = ours(setting, found).eval()
        times = alternate(
            {
                "plain": lambda _: plain(model, found),  # noqa: B023  (called in this pass)
                "decode": lambda _: decode(model, found.split, 0, found.pad_token_id, BATCH_TOKENS),  # noqa: B023
            },
            setting.rounds,
            1,
        )
        speeds = [
            f"{setting.rounds * len(found.split.rows) / sum(times[name].wall):.1f}"
            for name in ("plain", "decode")
        ]
        rows.append(
            (
                found.name,
                *speeds,
                ratio(times["decode"].wall, times["plain"].wall),
                ratio(times["decode"].cpu, times["plain"].cpu),
            )
        )
    yield "Rows (windows) a second in evaluation."
    yield ""
    yield from table(
        ("corpus", "plain loop", "decode", "its time / the loop's (quartiles)", "by CPU time"), rows
    )


def plain(model: PromptedModel, found: Corpus) -> None:
    """Each batch's most probable classes, thrown away."""
    with torch.no_grad():
        for rows in sorted_rows(found.split.table, found.split.rows, BATCH_TOKENS):
            model(collate(found.split.table, rows, 0, found.pad_token_id)).argmax(-1)
