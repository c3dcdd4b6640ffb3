"""Evaluation with `decode`, compared with a plain loop over the same rows without predictions."""

from collections.abc import Callable, Iterator

import torch

from benchmarks.speed.methods import deep_prompt_model
from benchmarks.speed.setting import Corpus, Setting, load_corpus
from benchmarks.speed.timing import alternate, ratio, table
from pipeline.evaluation.evaluate import decode
from pipeline.mixing.batches import collate, sorted_rows

NUM_ROWS = {"ner": 300, "qa": 30}
TOKENS_PER_BATCH = 2048  # as in the stages


def run(setting: Setting) -> Iterator[str]:
    """Yield a table of rows per second on both corpora."""
    yield "Rows (windows) per second in evaluation."
    yield ""
    columns = ("corpus", "plain loop", "decode", "its time / the loop's (quartiles)", "by CPU time")
    yield from table(columns, [_measure(setting, kind) for kind in NUM_ROWS])


def _measure(setting: Setting, kind: str) -> tuple[str, ...]:
    corpus = load_corpus(setting, kind, "validation", NUM_ROWS[kind])
    plain, decoding = _methods(setting, corpus)
    times = alternate(
        {"plain": lambda _: plain(), "decode": lambda _: decoding()}, setting.rounds, 1
    )
    num_rows = setting.rounds * len(corpus.eval_set.rows)
    return (
        corpus.name,
        f"{num_rows / sum(times['plain'].wall):.1f}",
        f"{num_rows / sum(times['decode'].wall):.1f}",
        ratio(times["decode"].wall, times["plain"].wall),
        ratio(times["decode"].cpu, times["plain"].cpu),
    )


def _methods(setting: Setting, corpus: Corpus) -> tuple[Callable[[], object], Callable[[], object]]:
    model = deep_prompt_model(setting, corpus).eval()
    eval_set, pad_token_id = corpus.eval_set, corpus.pad_token_id

    def plain() -> None:
        with torch.no_grad():
            for rows in sorted_rows(eval_set.table, eval_set.rows, TOKENS_PER_BATCH):
                model(collate(eval_set.table, rows, 0, pad_token_id)).argmax(-1)

    return plain, lambda: decode(model, eval_set, 0, pad_token_id, TOKENS_PER_BATCH)
