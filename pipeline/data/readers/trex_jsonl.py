"""T-REx as in LAMA and LPAQA: JSON lines of facts, and relations.jsonl with their templates.

Petroni et al. (2019), Language Models as Knowledge Bases?; Jiang et al. (2020), How Can We Know
What Language Models Know?
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from pipeline.data.readers.base import Source
from pipeline.data.readers.json_values import check, objects
from pipeline.errors import Problems, abbreviate, did_you_mean
from pipeline.tasks.base.row import Row
from pipeline.tasks.base.task import is_text_list

RELATIONS = "relations.jsonl"
SKIPPED_FACTS = "facts of other relations"  # their name in `Problems.skipped`
_FACT = {"relation": str, "subject": str, "object": str}
_RELATION = {"relation": str, "template": str, "paraphrases": list}


@dataclass(frozen=True)
class Options:
    """`relations` are the relations to read; the facts of others are skipped (empty: all)."""

    relations: tuple[str, ...] = ()


class _Templates(NamedTuple):
    """The template of a relation, and others that mean the same."""

    template: str
    paraphrases: list[str]


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `subject`, `relation`, `object`, `template` and `paraphrases`, one per fact."""
    templates = _templates(Path(str(source)), problems)
    if templates is None:
        return
    for where, value in objects(source, problems):
        if not check(value, where, _FACT, problems):
            continue
        relation = value["relation"]
        problems.found[relation] += 1
        if options.relations and relation not in options.relations:
            problems.skipped[SKIPPED_FACTS] += 1
        elif relation not in templates:
            problems.add(
                where,
                f"relation: {RELATIONS} has no {relation!r}{did_you_mean(relation, templates)}",
                "unknown-relation",
            )
        else:
            yield {
                "where": where,
                **{key: value[key] for key in _FACT},
                **templates[relation]._asdict(),
            }


def check_options(options: Options, where: str, problems: Problems) -> None:
    """Add a warning for each relation that no fact has."""
    for relation in options.relations:
        if not problems.found[relation]:
            known = [name for name, count in problems.found.items() if count]
            problems.add(
                where,
                f"relations: no fact has the relation {relation!r}{did_you_mean(relation, known)}",
                "unmatched-option",
            )


def companion_files(path: Path, options: Options) -> list[Path]:
    """The file of relations in the folder of a file of facts, if it exists."""
    file = path.parent / RELATIONS
    return [file] if file.is_file() else []


def _templates(path: Path, problems: Problems) -> Mapping[str, _Templates] | None:
    """The templates of each relation; None, and a problem, if there is no file of relations."""
    if not (files := companion_files(path, Options())):
        problems.add(
            str(path),
            f"{path.parent / RELATIONS} does not exist, which has the templates of the relations; "
            "add the file",
            "missing-file",
            hides=True,
        )
        return None
    templates: dict[str, _Templates] = {}
    for where, value in objects(files[0], problems):
        if not check(value, where, _RELATION, problems, hides=True):
            continue
        relation, paraphrases = value["relation"], value["paraphrases"]
        if not is_text_list(paraphrases):
            problems.add(
                where,
                f"paraphrases: found {abbreviate(paraphrases, 40)}, expected a list of texts",
                "wrong-type",
                hides=True,
            )
        elif relation in templates:
            problems.add(
                where,
                f"relation {relation!r} is in an earlier line too; remove one of the two",
                "repeated-relation",
            )
        else:
            template, *others = map(_joined, [value["template"], *paraphrases])
            distinct = dict.fromkeys(text for text in others if text != template)
            templates[relation] = _Templates(template, list(distinct))
    return templates


def _joined(template: str) -> str:
    """The template without the space of tokenized text before its last period."""
    text = template.strip()
    return f"{text[:-2].rstrip()}." if text.endswith(" .") else text
