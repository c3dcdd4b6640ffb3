"""The page of one corpus: what is wrong with it, and what is in it, as sections that text and HTML share."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.data.corpus_statistics import SplitStatistics, Statistics
from pipeline.errors import EXAMPLES_PER_KIND, WARNINGS, Problems
from pipeline.report import plots
from pipeline.report.render import Section, page
from pipeline.report.tables import DASH, Cell, Table, count, percent

GLOSSARY = {
    "words": "As the corpus has them: tokens of a sentence, or what stands between spaces. A sentence counts once for each of "
    "its predicates, a context once for each of its questions.",
    "sub-words": "As the backbone's tokenizer has them, with the special ones around a text.",
    "in several windows": "Rows whose text is longer than one window: it is read in several that overlap, or loses its end, as "
    "the table below says.",
    "warning": "A row that is sound, and may yet not be what one thinks. Everything else keeps a corpus from being prepared.",
}

NONE = "Nothing is wrong, and nothing odd."


def sections(statistics: Statistics | None, problems: Problems) -> list[Section]:
    """Problems by kind; then, where something is sound, sizes, lengths and labels."""
    found = [
        Section(
            "Problems",
            "" if problems.counts else NONE,
            (_problems(problems),) if problems.counts else (),
        )
    ]
    if statistics is None or not any(len(split.num_tokens) for split in statistics.splits.values()):
        return found
    return [
        *found,
        _sizes(statistics),
        *([_labels(statistics)] if any(s.labels for s in statistics.splits.values()) else []),
    ]


def write_page(path: Path, name: str, statistics: Statistics | None, problems: Problems) -> None:
    """One HTML file with all it needs. The same corpus gives the same bytes."""
    rows = sum(len(split.num_tokens) for split in statistics.splits.values()) if statistics else 0
    summary = f"{count(rows)} rows are sound. {_about(problems)}"
    text = page(
        "report.html", f"The corpus {name}", summary, sections(statistics, problems), GLOSSARY
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8", newline="\n")


def _about(problems: Problems) -> str:
    warnings = problems.counts.total() - len(problems)
    return f"Problems: {count(len(problems))}; warnings: {count(warnings)}."


def _problems(problems: Problems) -> Table:
    """A row a kind: errors before warnings, the most frequent first."""
    kinds = sorted(
        problems.counts.items(), key=lambda item: (item[0] in WARNINGS, -item[1], item[0])
    )
    rows = tuple(
        tuple(
            map(
                Cell,
                (
                    kind,
                    "warning" if kind in WARNINGS else "error",
                    count(number),
                    _examples(problems, kind),
                ),
            )
        )
        for kind, number in kinds
    )
    return Table("By kind", _head("kind", "severity", "count", "for example"), rows, prose=True)


def _examples(problems: Problems, kind: str) -> str:
    kept = [
        f"{problem.where}: {problem.message}" for problem in problems.kept if problem.kind == kind
    ]
    return " / ".join(
        text if len(text) <= 300 else f"{text[:299]}…" for text in kept[:EXAMPLES_PER_KIND]
    )


def _sizes(statistics: Statistics) -> Section:
    splits, limit = statistics.splits, statistics.max_length
    drawn = [
        plots.histogram(
            "Words in a row", "words", {name: split.num_tokens for name, split in splits.items()}
        )
    ]
    shown = [
        Table(
            "Rows and words",
            _head("split", "rows", "words", "median", "95 %", "longest"),
            tuple(
                (Cell(name), Cell(count(len(split.num_tokens))), *_spread(split.num_tokens))
                for name, split in splits.items()
            ),
        )
    ]
    about = f"Task {statistics.task}."
    if limit is None:
        about += " Give --backbone and --max-length to see how long texts are in its sub-words."
    else:
        about += f" Windows have at most {limit} sub-words."
        head = _head(
            "split",
            "rows counted",
            "sub-words",
            "median",
            "95 %",
            "longest",
            "in several windows",
            "windows",
        )
        rows = tuple(
            (
                Cell(name),
                Cell(count(len(split.num_subwords))),
                *_spread(split.num_subwords),
                *_windows(split, limit),
            )
            for name, split in splits.items()
        )
        shown.append(Table("Sub-words, by the backbone's tokenizer", head, rows))
        shown += _happened(splits)
        drawn.append(
            plots.histogram(
                "Sub-words in a row",
                "sub-words",
                {n: s.num_subwords for n, s in splits.items()},
                limit,
            )
        )
    return Section("Sizes", about, tuple(shown), tuple(drawn))


def _head(*names: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, names))


def _spread(values: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> tuple[Cell, ...]:
    """Their sum, median, 95th percentile and greatest."""
    if not len(values):
        return (Cell(DASH),) * 4
    figures = (values.sum(), np.median(values), np.quantile(values, 0.95), values.max())
    return tuple(Cell(count(round(float(figure)))) for figure in figures)


def _windows(split: SplitStatistics, limit: int) -> tuple[Cell, ...]:
    if not len(split.num_subwords):
        return (Cell(DASH),) * 2
    return Cell(percent(float((split.num_subwords > limit).mean()))), Cell(
        count(int(split.num_windows.sum()))
    )


def _happened(splits: Mapping[str, SplitStatistics]) -> Sequence[Table]:
    what = list(dict.fromkeys(name for split in splits.values() for name in split.truncations))
    rows = tuple(
        (Cell(name), *(Cell(count(split.truncations.get(name, 0))) for split in splits.values()))
        for name in what
    )
    return [Table("What does not fit", _head("what", *splits), rows)] if rows else []


def _labels(statistics: Statistics) -> Section:
    splits = statistics.splits
    names = sorted(
        {label for split in splits.values() for label in split.labels},
        key=lambda label: (-sum(split.labels.get(label, 0) for split in splits.values()), label),
    )
    totals = {name: max(1, sum(split.labels.values())) for name, split in splits.items()}
    shares = {
        label: {
            name: 100 * split.labels.get(label, 0) / totals[name] for name, split in splits.items()
        }
        for label in names
    }
    rows = tuple(
        (
            Cell(label),
            *(
                Cell(count(split.labels.get(label, 0)), percent(shares[label][name] / 100))
                for name, split in splits.items()
            ),
        )
        for label in names
    )
    table = Table("Annotations by label", _head("label", *splits), rows)
    return Section(
        "Labels",
        f"Labels: {len(names)}.",
        (),
        (plots.bars("Share of annotations", "%", shares),),
        table,
    )
