"""What readers give and tasks take. Apart from both, so that no training depends on the code of a reader."""

from typing import Any

SPLITS = ("train", "validation", "test")

Row = dict[str, Any]
"""One unchecked example as plain Python. Always `where` (its "file:line"), perhaps `id`; the other keys are the task's:
tokens and tags (IOB2); or tokens, predicate and tags; or question, context, answers (text, answer_start) and perhaps title; or
text and label, perhaps text_pair, spans (segment, start, end) and question; or context, question, choices and answers (texts),
perhaps starts."""
