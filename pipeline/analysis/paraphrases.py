"""A question and its context in other words, to which the answer is the same, by rules: nothing is
drawn.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.tasks.base.capabilities import AnswersQuestions

SENTENCE = re.compile(
    r"\S.*?(?:[.!?]+(?=\s)|\Z)", re.DOTALL
)  # cuts after "Mr." too, which leaves a shorter context
VERBS = "did|does|do|is|are|was|were|has|have|had|would|could|should"
Change = str | Callable[[re.Match[str]], str]
RULES: tuple[tuple[str, Change], ...] = (  # each is tried alone, on questions in any case
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
    (r"\A(what|who|where|when|how) is\b", r"\1's"),  # not back: "what's" may be "what has"
)


def rephrased(question: str) -> list[str]:
    """The question by each rule that fits it."""
    found = (
        re.sub(pattern, change, question, count=1, flags=re.IGNORECASE) for pattern, change in RULES
    )
    return [one for one in dict.fromkeys(found) if one.strip() and one != question]


def trimmed(context: str, text: str) -> list[str]:
    """The context cut to the sentences in which `text` is, and to these with one on either side;
    what is shorter than it.
    """
    places = [match.span() for match in re.finditer(re.escape(text), context)] if text else []
    bounds = [match.span() for match in SENTENCE.finditer(context)]
    inside = {
        number
        for number, (start, end) in enumerate(bounds)
        for begin, stop in places
        if start < stop and begin < end
    }
    kept = (
        inside,
        {
            near
            for number in inside
            for near in (number - 1, number, number + 1)
            if 0 <= near < len(bounds)
        },
    )
    found = (
        " ".join(context[slice(*bounds[number])] for number in sorted(numbers)) for numbers in kept
    )
    return [one for one in dict.fromkeys(found) if one and len(one) < len(context)]


def variants(task: AnswersQuestions[Any], example: Any, prediction: str) -> Iterator[Any]:
    """Paraphrases of an example that was answered with `prediction`: new ids, and no annotation."""
    changed = [(question, example.context) for question in rephrased(example.question)]
    changed += [(example.question, context) for context in trimmed(example.context, prediction)]
    for number, (question, context) in enumerate(changed):
        yield task.ask(f"{example.id}/{number}", question, context)
