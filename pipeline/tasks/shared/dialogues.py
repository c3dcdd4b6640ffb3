"""Checks and texts of dialogues with labels "slot=value", shared by the tasks on them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from pipeline.errors import Problems, describe, quantity
from pipeline.metrics.dialogue_states import REQUEST, split_label
from pipeline.tasks.base.row import Row
from pipeline.tasks.base.task import is_text_list
from pipeline.tasks.shared.validation import check_surrogates, check_text


def label_lists(row: Row, problems: Problems) -> Sequence[Sequence[str]] | None:
    """The labels of each turn of an annotated row; None, and a problem, if they are not lists."""
    turns: Any = row["labels"]
    if isinstance(turns, list | tuple) and all(map(is_text_list, turns)):
        return turns
    problems.add(
        row["where"],
        f"labels: found {str(turns)[:40]!r}, expected a list of labels for each turn",
        "wrong-type",
    )
    return None


def unlabeled(row: Row) -> Sequence[Sequence[str]]:
    """No labels for each turn of a row to predict."""
    return [()] * len(row["user"]) if is_text_list(row["user"]) else ()


def check_dialogue(row: Row, labels: Sequence[Sequence[str]], problems: Problems) -> bool:
    """Whether `system`, `user` and the labels have the same turns, and no user's text is empty.

    No turn may have several values of a slot.
    """
    where, before = row["where"], len(problems)
    system, user = row["system"], row["user"]
    for key, texts in (("system", system), ("user", user)):
        if not is_text_list(texts):
            problems.add(
                where,
                f"{key}: found {describe(texts)}, expected a list of texts",
                "wrong-type",
            )
    if len(problems) > before:
        return False
    if not len(system) == len(user) == len(labels) > 0:
        counts = [f"{quantity(len(system), 'text')} of the system", f"{len(user)} of the user"]
        if "labels" in row:  # a row to predict has none
            counts.append(f"labels of {quantity(len(labels), 'turn')}")
        problems.add(
            where,
            f"{', '.join(counts)}; a dialogue has at least one turn, and each turn has "
            f"{'all of them' if 'labels' in row else 'both'}",
            "turn-count",
        )
    for number, (system_text, user_text) in enumerate(zip(system, user, strict=False)):
        check_text("user", user_text, f"{where}: turn {number}", problems)
        check_surrogates("system", system_text, f"{where}: turn {number}", problems)
    for number, turn in enumerate(labels):
        _check_slots(turn, f"{where}: turn {number}", problems)
    return len(problems) == before


def _check_slots(turn: Sequence[str], where: str, problems: Problems) -> None:
    for slot, count in Counter(split_label(label)[0] for label in turn).items():
        if count > 1 and slot != REQUEST:
            problems.add(
                where, f"slot {slot!r} has {count} values; keep the last one", "repeated-slot"
            )
