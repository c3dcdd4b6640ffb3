"""The report's tables on mixtures: what each corpus is of one, as intended and as drawn, and what leaks."""

from collections.abc import Sequence

from pipeline.report.collect import Mixture
from pipeline.report.stage_outputs import Scores
from pipeline.report.tables import DASH, Cell, Table, count, factor, learning_rates, percent


def shares(mixture: Mixture) -> Table | None:
    """How much of the mixture each corpus is, by rows and as sampled."""
    if not mixture.corpora:
        return None
    names = ("rows", "share of rows", "share as sampled", "rate", "epochs", "micro-batches")
    total = sum(corpus.get("rows") or 0 for corpus in mixture.corpora.values())
    rows = tuple(
        (Cell(name), *map(Cell, _corpus(corpus, total))) for name, corpus in mixture.corpora.items()
    )
    unit = mixture.settings.get("unit")
    columns = (
        Cell("corpus"),
        *(Cell(name, f"of {count(unit)}" if name == "rate" and unit else "") for name in names),
    )
    return Table("Corpora", columns, rows)


def _corpus(corpus: Scores, total: float) -> tuple[str, ...]:
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


DRAWN = {
    "micro_batches": "micro-batches",
    "rows": "rows",
    "tokens": "tokens",
    "loss_tokens": "loss tokens",
}


def drawn_shares(mixture: Mixture) -> dict[str, dict[str, float]]:
    """Corpus -> in percent, the share that was intended and those that the run realized; empty where it has no record of it."""
    drawn, corpora = mixture.training.drawn, mixture.corpora or {}
    totals = {key: sum(counts.get(key) or 0 for counts in drawn.values()) or 1 for key in DRAWN}
    return {
        name: {"intended": 100 * (corpora[name].get("share") or 0)}
        | {title: 100 * (counts.get(key) or 0) / totals[key] for key, title in DRAWN.items()}
        for name, counts in drawn.items()
        if name in corpora
    }


def consumed_by_corpus(mixture: Mixture) -> Table | None:
    """What the run drew of each corpus, beside the share that was intended."""
    shares = drawn_shares(mixture)
    rows = tuple(
        (
            Cell(name),
            Cell(percent(found["intended"] / 100, 1)),
            *(
                Cell(percent(found[title] / 100, 1), count(mixture.training.drawn[name].get(key)))
                for key, title in DRAWN.items()
            ),
        )
        for name, found in shares.items()
    )
    columns = (Cell("corpus"), Cell("intended"), *map(Cell, DRAWN.values()))
    return Table("Shares of what was trained on", columns, rows) if rows else None


def leaks(mixture: Mixture) -> Table | None:
    """Held-out rows of one corpus whose texts are in train rows of another, or of itself."""
    columns = (
        "trained on",
        "held out",
        "split",
        "rows",
        "equal",
        "contained",
        "train rows",
        "for example",
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
        Table("Held-out rows found among train rows", tuple(map(Cell, columns)), rows, prose=True)
        if rows
        else None
    )


def _examples(examples: Sequence[str]) -> str:
    shown = [example if len(example) <= 120 else example[:119] + "…" for example in examples[:3]]
    return " / ".join(shown) or DASH


def pretraining(mixture: Mixture) -> Table | None:
    """The multi-task run's own numbers."""
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
