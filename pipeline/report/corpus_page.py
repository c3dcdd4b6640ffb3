"""The page of one corpus: its problems and statistics, as sections for text and HTML."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.data.corpus_statistics import SplitStatistics, Statistics
from pipeline.display.highlighting import excerpt
from pipeline.errors import EXAMPLES_PER_KIND, Problems, Severity, shorten
from pipeline.files import atomic_write
from pipeline.report import kinds, plots
from pipeline.report.render import Section, page
from pipeline.report.tables import DASH, Cell, Table, count, percent, score

GLOSSARY = {
    "words": "Words of the corpus: the tokens of a sentence, or pieces of text between spaces. A "
    "sentence counts once per predicate, a context once per question.",
    "characters": "In texts without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer), each "
    "character counts as a word.",
    "sub-words": "Tokens of the backbone's tokenizer, including the special tokens around a text.",
    "in several windows": "Rows with a text longer than one window. The model reads it in several "
    "overlapping windows, or its end is truncated, as the table below shows.",
    "unknown": "The share of sub-words that are the tokenizer's unknown token, without special "
    "tokens. A model cannot read them.",
    "perfect model": "A model that outputs the labels of the features. Its score is below 100 if "
    "windows, sub-words or decoding cannot express an annotation, such as an answer inside a word. "
    "No training can exceed it.",
    "warning": "An unusual but valid row.",
    "error": "A problem that prevents `prepare` from accepting the corpus, unless the recipe drops "
    "its rows.",
    "allowed": "A problem of a kind that the recipe accepts (`allow`). The rows are kept.",
}

MAX_EXAMPLE_LENGTH = 300  # in characters
MAX_SHOWN_TEXT = 1500  # in characters, of an example
MAX_LABELS = 200  # in the table
NO_PROBLEMS = "There are no problems and no warnings."


def sections(statistics: Statistics | None, problems: Problems) -> list[Section]:
    """The problems by kind; if there are valid rows, also their sizes, labels and highest score."""
    tables = (_problems(problems),) if problems.counts else ()
    skipped = problems.skipped_text()
    sentences = ("" if problems.counts else NO_PROBLEMS, skipped and f"Skipped: {skipped}.")
    page_sections = [Section("Problems", " ".join(filter(None, sentences)), tables)]
    if statistics is None or not any(len(split.num_tokens) for split in statistics.splits.values()):
        return page_sections
    page_sections.append(_sizes(statistics))
    if any(split.labels for split in statistics.splits.values()):
        page_sections.append(_labels(statistics))
    if any(split.features and split.features.ceiling for split in statistics.splits.values()):
        page_sections.append(_perfect_model(statistics))
    if statistics.examples:
        text = "The first training rows, as the reader gives them."
        shown = tuple(excerpt(example, MAX_SHOWN_TEXT) for example in statistics.examples)
        page_sections.append(Section("Examples", text, (), examples=shown))
    return page_sections


def write_page(path: Path, name: str, statistics: Statistics | None, problems: Problems) -> None:
    """Write a self-contained HTML page. The same corpus gives the same bytes."""
    rows = sum(len(split.num_tokens) for split in statistics.splits.values()) if statistics else 0
    summary = f"{count(rows)} rows are valid. {problem_counts(problems)}"
    text = page(
        "report.html", f"The corpus {name}", summary, sections(statistics, problems), GLOSSARY
    )
    atomic_write(path, text)


def problem_counts(problems: Problems) -> str:
    """The numbers of problems by severity, as a sentence."""
    totals = Counter[Severity]()
    for kind, number in problems.counts.items():
        totals[problems.severity(kind)] += number
    allowed = f" allowed by the recipe: {count(totals['allowed'])};" if totals["allowed"] else ""
    return f"Errors: {count(totals['error'])};{allowed} warnings: {count(totals['warning'])}."


def _problems(problems: Problems) -> Table:
    """One row per kind: errors before warnings, the most frequent kinds first."""
    rows = tuple(_problem_row(problems, kind) for kind in problems.kinds())
    return Table("By kind", _head("kind", "severity", "count", "examples"), rows, prose=True)


def _problem_row(problems: Problems, kind: str) -> tuple[Cell, ...]:
    number = count(problems.counts[kind])
    return _head(kind, problems.severity(kind), number, _examples(problems, kind))


def _examples(problems: Problems, kind: str) -> str:
    examples = [
        f"{problem.where}: {problem.message}" for problem in problems.kept if problem.kind == kind
    ]
    return " / ".join(
        shorten(example, MAX_EXAMPLE_LENGTH) for example in examples[:EXAMPLES_PER_KIND]
    )


def _sizes(statistics: Statistics) -> Section:
    """The number of rows, and the distribution of their lengths."""
    splits, limit = statistics.splits, statistics.max_length
    words = {name: split.num_tokens for name, split in splits.items()}
    unit = statistics.unit
    tables = [_words_table(splits, unit)]
    histograms = [plots.histogram(f"{unit.capitalize()} per row", unit, words)]
    text = f"Task {statistics.task}."
    if limit is None:
        text += " To see lengths in sub-words, pass --backbone."
    else:
        text += f" A window has at most {limit} sub-words."
        tables += [_subwords_table(splits, limit), *_truncations(splits)]
        subwords = {name: split.num_subwords for name, split in splits.items()}
        histograms.append(plots.histogram("Sub-words per row", "sub-words", subwords, limit))
    text = f"{text} {statistics.words}".strip()
    return Section("Sizes", text, tuple(tables), tuple(histograms))


def _words_table(splits: Mapping[str, SplitStatistics], unit: str) -> Table:
    """Rows and their lengths by split, in words, or in characters for scripts without spaces."""
    rows = tuple(
        (Cell(name), Cell(count(len(split.num_tokens))), *_summary(split.num_tokens))
        for name, split in splits.items()
    )
    head = _head("split", "rows", unit, "median", "95 %", "longest")
    return Table(f"Rows and {unit}", head, rows)


def _subwords_table(splits: Mapping[str, SplitStatistics], limit: int) -> Table:
    """Lengths in sub-words by split, rows of several windows, and unknown tokens."""
    rows = tuple(
        (
            Cell(name),
            Cell(count(len(split.num_subwords))),
            *_summary(split.num_subwords),
            *_windows(split, limit),
            Cell(_unknown(split)),
        )
        for name, split in splits.items()
    )
    names = ("split", "rows tokenized", "sub-words", "median", "95 %", "longest")
    head = _head(*names, "in several windows", "windows", "unknown")
    return Table("Sub-words of the backbone's tokenizer", head, rows)


def _head(*names: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, names))


def _summary(values: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]") -> tuple[Cell, ...]:
    """The sum, median, 95th percentile and maximum."""
    if not len(values):
        return (Cell(DASH),) * 4
    numbers = (values.sum(), np.median(values), np.quantile(values, 0.95), values.max())
    return tuple(Cell(count(round(float(number)))) for number in numbers)


def _windows(split: SplitStatistics, limit: int) -> tuple[Cell, ...]:
    if not len(split.num_subwords):
        return (Cell(DASH),) * 2
    share = float((split.num_subwords > limit).mean())
    return _head(percent(share), count(int(split.num_windows.sum())))


def _unknown(split: SplitStatistics) -> str:
    return percent(split.features.unknown_fraction) if split.features else DASH


def _perfect_model(statistics: Statistics) -> Section:
    """The score of the annotation itself, and the rows on which even it is wrong."""
    reports = {name: split.features for name, split in statistics.splits.items() if split.features}
    metrics = list(dict.fromkeys(name for report in reports.values() for name in report.ceiling))
    titles = [kinds.title(statistics.task, name) for name in metrics]
    rows = tuple(
        (
            Cell(split),
            *_head(count(report.rows), count(report.num_missed)),
            *(Cell(score(report.ceiling.get(name))) for name in metrics),
        )
        for split, report in reports.items()
    )
    tables = [Table("Score of a perfect model", _head("split", "rows", "wrong", *titles), rows)]
    worst = tuple(
        _head(split, row.id, score(row.score), shorten(row.error, MAX_EXAMPLE_LENGTH))
        for split, report in reports.items()
        for row in report.worst
    )
    primary = kinds.title(statistics.task, statistics.primary)
    if worst:
        head = _head("split", "row", primary, "prediction")
        tables.append(Table("Rows that a perfect model gets wrong", head, worst, prose=True))
    text = f"Primary metric: {primary}. No training can exceed this score."
    return Section("Perfect model", text, tuple(tables))


def _truncations(splits: Mapping[str, SplitStatistics]) -> Sequence[Table]:
    """What the maximum window length cuts or splits."""
    kinds = list(dict.fromkeys(name for split in splits.values() for name in split.truncations))
    rows = tuple(
        (Cell(name), *(Cell(count(split.truncations.get(name, 0))) for split in splits.values()))
        for name in kinds
    )
    return [Table("Truncation and splitting", _head("effect", *splits), rows)] if rows else []


def _labels(statistics: Statistics) -> Section:
    """The annotations of each label by split."""
    splits = statistics.splits
    totals = Counter[str]()
    for split in splits.values():
        totals.update(split.labels)
    names = sorted(totals, key=lambda label: (-totals[label], label))[:MAX_LABELS]
    shares = {label: _shares(splits, label) for label in names}
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
    bars = plots.bars("Share of annotations", "%", shares)
    text = f"Labels: {len(totals)}."
    if len(names) < len(totals):
        text += f" Those of the table are the {len(names)} most frequent."
    return Section("Labels", text, (), (bars,), table)


def _shares(splits: Mapping[str, SplitStatistics], label: str) -> dict[str, float]:
    """The share of a label among the annotations of each split, in percent."""
    return {
        name: 100 * split.labels.get(label, 0) / max(1, sum(split.labels.values()))
        for name, split in splits.items()
    }
