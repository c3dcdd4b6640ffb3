"""The report's tables on mixtures: intended and realized shares of the corpora, and leakage."""

from collections.abc import Mapping, Sequence

from pipeline.errors import shorten
from pipeline.report.collect import Mixture
from pipeline.report.stage_outputs import Scores
from pipeline.report.tables import DASH, Cell, Table, count, factor, learning_rates, percent


def shares(mixture: Mixture) -> Table | None:
    """The share of each corpus in the mixture, by rows and by sampling rate."""
    if not mixture.corpora:
        return None
    names = ("rows", "share of rows", "sampled share", "rate", "epochs", "micro-batches")
    total = sum(corpus.get("rows") or 0 for corpus in mixture.corpora.values())
    rows = tuple(
        (Cell(name), *map(Cell, _share_texts(corpus, total)))
        for name, corpus in mixture.corpora.items()
    )
    unit = mixture.settings.get("unit")
    columns = (
        Cell("corpus"),
        *(Cell(name, f"of {count(unit)}" if name == "rate" and unit else "") for name in names),
    )
    return Table("Corpora", columns, rows)


def _share_texts(corpus: Scores, total: float) -> tuple[str, ...]:
    rows = corpus.get("rows")
    by_rows = percent(rows / total if total and rows is not None else None, 1)
    sampled, epochs = percent(corpus.get("share"), 1), factor(corpus.get("epochs"))
    return (
        count(rows),
        by_rows,
        sampled,
        count(corpus.get("rate")),
        epochs,
        count(corpus.get("micro_batches")),
    )


UNIT_TITLES = {
    "micro_batches": "micro-batches",
    "rows": "rows",
    "tokens": "tokens",
    "loss_tokens": "loss tokens",
}


def shares_by_unit(mixture: Mixture) -> dict[str, dict[str, float]]:
    """The intended and the realized shares of each corpus by unit, in percent.

    Empty if the run has no record of the realized shares.
    """
    consumed, corpora = mixture.training.consumed_by_corpus, mixture.corpora or {}
    totals = {
        key: sum(counts.get(key) or 0 for counts in consumed.values()) or 1 for key in UNIT_TITLES
    }
    return {
        name: {"intended": 100 * (corpora[name].get("share") or 0)}
        | {title: 100 * (counts.get(key) or 0) / totals[key] for key, title in UNIT_TITLES.items()}
        for name, counts in consumed.items()
        if name in corpora
    }


def consumed_by_corpus(mixture: Mixture) -> Table | None:
    """The realized shares of each corpus next to its intended share."""
    rows = tuple(
        (
            Cell(name),
            Cell(percent(corpus_shares["intended"] / 100, 1)),
            *_realized_cells(corpus_shares, mixture.training.consumed_by_corpus[name]),
        )
        for name, corpus_shares in shares_by_unit(mixture).items()
    )
    columns = (Cell("corpus"), Cell("intended"), *map(Cell, UNIT_TITLES.values()))
    return Table("Shares of the training data", columns, rows) if rows else None


def _realized_cells(corpus_shares: Mapping[str, float], counts: Scores) -> tuple[Cell, ...]:
    return tuple(
        Cell(percent(corpus_shares[title] / 100, 1), count(counts.get(key)))
        for key, title in UNIT_TITLES.items()
    )


def leaks(mixture: Mixture) -> Table | None:
    """Held-out rows that share a text with training rows of the same or another corpus."""
    columns = (
        "training corpus",
        "held-out corpus",
        "split",
        "rows",
        "equal",
        "contained",
        "training rows",
        "examples",
    )
    keys = ("rows", "equal", "contained", "train_rows")
    rows = tuple(
        (
            *map(Cell, (leak.train, leak.held_out, leak.split)),
            *(Cell(count(leak.counts.get(key))) for key in keys),
            Cell(_examples(leak.examples)),
        )
        for leak in mixture.leaks
    )
    return (
        Table(
            "Held-out rows found among training rows", tuple(map(Cell, columns)), rows, prose=True
        )
        if rows
        else None
    )


def _examples(examples: Sequence[str]) -> str:
    return " / ".join(shorten(example, 120) for example in examples[:3]) or DASH


def pretraining(mixture: Mixture) -> Table | None:
    """The steps, rows, tokens and learning rates of the multi-task run."""
    names = ("steps", "best_step", "rows_seen", "tokens_seen")
    facts, seed = mixture.training.facts, mixture.training.facts.get("seed")
    if all(value is None for value in facts.values()):
        return None
    texts = (
        *(count(facts.get(name)) for name in names),
        learning_rates(mixture.training.learning_rates),
    )
    columns = ("mixture", *(name.replace("_", " ") for name in names), "learning rates", "seed")
    row = (Cell(mixture.name), *map(Cell, texts), Cell(DASH if seed is None else str(seed)))
    return Table("Training of the shared prompt", tuple(map(Cell, columns)), (row,))
