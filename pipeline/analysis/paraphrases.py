"""Rule-based paraphrases of a question and its context that keep the answer.

The rules are deterministic.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.tasks.base.capabilities import AnswersQuestions

# Also splits after "Mr."; the context is then shorter than intended, which is harmless.
SENTENCE = re.compile(r"\S.*?(?:[.!?]+(?=\s)|\Z)", re.DOTALL)
VERBS = "did|does|do|is|are|was|were|has|have|had|would|could|should"
Change = str | Callable[[re.Match[str]], str]
RULES: tuple[tuple[str, Change], ...] = (  # applied one at a time, ignoring case
    (r"\s*\?\s*\Z", ""),
    (
        r"\A(?:in|on|at|during) (what|which)(?= [a-z])",
        lambda match: match[1].capitalize(),
    ),  # "In which year"; not "By whom"
    (
        r"\A(what|who) (is|are|was|were) ((?:the |an? "
        r"|[\"']?(?-i:[A-Z]))(?!.*\b(?:what|who|which)\b).*?)\s*\?\s*\Z",
        lambda match: f"{match[3]} {match[2]} {match[1].lower()}?",
    ),
    (r"\Awhich (?!of\b|is\b|are\b|was\b|were\b)(?=[a-z])", "What "),
    (rf"\b({VERBS}) not\b", r"\1n't"),
    (rf"\b({VERBS})n['’]t\b", r"\1 not"),
    (r"\A(what|who|where|when|how) is\b", r"\1's"),  # no inverse: "what's" may be "what has"
)


def rephrase(question: str) -> list[str]:
    """The distinct results of the rules that change the question."""
    candidates = (
        re.sub(pattern, change, question, count=1, flags=re.IGNORECASE) for pattern, change in RULES
    )
    return [text for text in dict.fromkeys(candidates) if text.strip() and text != question]


def trim_context(context: str, text: str) -> list[str]:
    """Shorter versions of the context around `text`.

    The first keeps only the sentences with `text`, the second also their neighbors. Omits versions
    as long as the context.
    """
    matches = [match.span() for match in re.finditer(re.escape(text), context)] if text else []
    bounds = [match.span() for match in SENTENCE.finditer(context)]
    inside = {
        number
        for number, (start, end) in enumerate(bounds)
        for begin, stop in matches
        if start < stop and begin < end
    }
    with_neighbors = {
        near
        for number in inside
        for near in (number - 1, number, number + 1)
        if 0 <= near < len(bounds)
    }
    candidates = (
        " ".join(context[slice(*bounds[number])] for number in sorted(numbers))
        for numbers in (inside, with_neighbors)
    )
    return [text for text in dict.fromkeys(candidates) if text and len(text) < len(context)]


def variants(task: AnswersQuestions[Any], example: Any, prediction: str) -> Iterator[Any]:
    """Paraphrases of an example that keep the answer `prediction`: new ids, no annotation."""
    changed = [(question, example.context) for question in rephrase(example.question)]
    changed += [
        (example.question, context) for context in trim_context(example.context, prediction)
    ]
    for number, (question, context) in enumerate(changed):
        yield task.ask(f"{example.id}/{number}", question, context)
