"""Knowledge probing: the object of a subject and a relation, by the frozen LM head of a decoder.

The template of a relation, such as "[X] was born in [Y] .", becomes a text with the subject in
place of [X]. The model reads the text before [Y]. The score of an object is the log-probability of
its tokens and of the rest of the template after it (of the end token if nothing follows). So an
object ends where the template goes on, and is not better because it is the beginning of another.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, TypedDict

import numpy as np
import pyarrow as pa

from pipeline.errors import Problems, UserError, did_you_mean
from pipeline.metrics import knowledge
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks.base.candidates import BEYOND, RankingQuery
from pipeline.tasks.base.capabilities import (
    HasConfidence,
    HasParaphrases,
    HasUnits,
    Perturbable,
    RanksCandidates,
    Sample,
    ShowsSamples,
)
from pipeline.tasks.base.claims import Claim, Floats, softmax, temperature_of
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.base.task import Task, is_text_list
from pipeline.tasks.shared.cloze_templates import (
    OBJECT,
    SUBJECT,
    is_template,
    split_template,
    template_problem,
)
from pipeline.tasks.shared.generation import target_feature
from pipeline.tasks.shared.relation_candidates import (
    all_objects,
    catalog,
    encode_objects,
    relations_of,
)
from pipeline.tasks.shared.validation import check_name, check_text

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

MAX_OBJECT_TOKENS = 24  # with the rest of the template
MIN_TEXT_TOKENS = 8  # before an object
NUM_SHOWN = 3  # objects in a sample


@dataclass(frozen=True)
class Example:
    """A fact, with the template of its relation and other templates that mean the same.

    A row to predict has the object "", and the template "" if it leaves it out.
    """

    id: str
    subject: str
    relation: str
    object: str
    template: str
    paraphrases: tuple[str, ...] = ()


class RankedObjects(TypedDict):
    """The best objects of the relation, and the ranks of the right one (see `Ranking`)."""

    objects: list[str]
    rank: int
    rank_all: int
    rank_vocabulary: int


@dataclass(frozen=True)
class ScoredObject:
    """An object and its probability among the objects of its relation."""

    object: str
    probability: float


@dataclass(frozen=True)
class BestObjects:
    """The most probable objects, best first."""

    objects: tuple[ScoredObject, ...]

    def __str__(self) -> str:
        return ", ".join(f"{item.object} ({item.probability:.2f})" for item in self.objects)


class KnowledgeProbing(
    Task[Example, Sequence[RankedObjects], BestObjects],
    RanksCandidates[Example],
    HasUnits[Example, Sequence[RankedObjects]],
    HasConfidence[Example],
    Perturbable[Example],
    HasParaphrases[Example, Sequence[RankedObjects]],
    ShowsSamples[Example],
):
    """Predictions are ranked objects, one mapping per example in the examples' order.

    A label is "relation=object" or "relation=template". The classes have those of all splits, so
    they are the candidates; as a set, they do not tell which subject an object belongs to. They are
    in the order of their frequency in the training split, and by name, so the first object of a
    relation is its majority object. An object has at most `max_answer_length` sub-words with the
    text after it.
    """

    example_type = Example
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("id", "subject", "relation", "object", "template")),
            ("paraphrases", pa.list_(pa.string())),
        ]
    )
    row_keys = RowKeys(
        inputs={"subject": "text", "relation": "name"},
        targets={"object": "text"},
        optional={"template": "text", "paraphrases": "texts"},
    )
    inputs = ("subject", "relation")
    outputs = ("object",)
    head = "language_model"
    metric_names = ("p_at_1", "p_at_10", "mrr")
    metric_titles: ClassVar[Mapping[str, str]] = knowledge.TITLES
    glossary: ClassVar[Mapping[str, str]] = knowledge.GLOSSARY
    collects_labels = True
    claim_and_decision_names = ("objects", "objects")
    pipeline_tag = "text-generation"

    def __init__(self, max_object_tokens: int = MAX_OBJECT_TOKENS) -> None:
        self.max_answer_length: int = max_object_tokens

    def configured(
        self, metric: str | None = None, max_answer_length: int | None = None
    ) -> "KnowledgeProbing":
        """The task with another maximum length of objects. All metrics are always computed."""
        return KnowledgeProbing(max_answer_length or self.max_answer_length)

    @property
    def identity(self) -> tuple[str, ...]:
        """The columns of a fact: a subject may have several objects."""
        return ("subject", "relation", "object")

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """The problems of a recipe's labels: the candidates are those of the rows."""
        return ["the task takes its candidates from the rows; remove the key"] if labels else []

    def labels(self, example: Example) -> Iterator[str]:
        """The template and the object of the fact, as labels."""
        yield f"{example.relation}={example.template}"
        yield f"{example.relation}={example.object}"

    def text(self, example: Example) -> str:
        """The fact with the template of its relation.

        It has more words than the statement of the fact, because `mix` compares no texts of less
        than 4 words, and the same statement may be a fact of another relation.
        """
        return f"{example.subject} · {example.relation} {example.template} · {example.object}"

    def num_tokens(self, example: Example) -> int:
        """The number of words of the statement."""
        filled = example.template.replace(SUBJECT, example.subject)
        return len(filled.replace(OBJECT, example.object).split())

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The fact. No text may be empty, and the model must be able to read the template."""
        where, before = row["where"], len(problems)
        example = _example(row, problems)
        if row.get("template") is None:
            problems.add(
                where,
                f"template is missing; give the row a text with {SUBJECT} and {OBJECT} in place of "
                "the subject and the object",
                "missing-template",
            )
        if check_text("object", row["object"], where, problems) and is_template(row["object"]):
            problems.add(
                where,
                f"object {row['object']!r} has {SUBJECT} and {OBJECT}, as a template; correct it",
                "invalid-object",
            )
        if example is None or len(problems) > before:
            return None
        return replace(example, object=row["object"])

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The subject and the relation, and maybe a template."""
        return _example(row, problems)

    def check_query(
        self, example: Example, classes: Sequence[str], where: str, problems: Problems
    ) -> None:
        """Add a problem if the classes have no candidates for the relation."""
        known = relations_of(tuple(classes))
        if example.relation not in known:
            problems.add(
                where,
                f"relation: no candidates for {example.relation!r}"
                f"{did_you_mean(example.relation, known)}",
                "unknown-relation",
            )

    def apply_edit(self, example: Example, edit: Edit) -> Example:
        """The fact with an edited subject."""
        return replace(example, subject=edit.text(example.subject)[0])

    def featurize(
        self,
        examples: Sequence[Example],
        first: int,
        tokenizer: "Tokenizer",
        classes: Sequence[str],
        max_length: int,
        stride: int,
        counts: Counter[str],
    ) -> Iterator[Feature]:
        """One window per fact: the text before the object, the object and the text after it.

        The loss is on the object and the text after it. The text before the object leaves room for
        `max_answer_length` tokens, so that it does not depend on the object; its beginning is cut
        if it is longer, and counted. A longer object is counted, and its end is not learned; its
        rank is that of the whole object. Raises UserError if the backbone is not a decoder, or
        if there is no room for a text.
        """
        self._check(tokenizer, max_length)
        room = max_length - self.max_answer_length - len(tokenizer.prefix)
        clozes = [split_template(_template_of(example, classes)) for example in examples]
        texts = tokenizer.encode_texts(
            [cloze.text(example.subject) for cloze, example in zip(clozes, examples, strict=True)]
        )
        answers = encode_objects(clozes, [example.object for example in examples], tokenizer)
        for number, ((ids, _), answer) in enumerate(zip(texts, answers, strict=True), first):
            counts["facts cut"] += len(ids) > room
            counts["objects longer than max_answer_length"] += (
                len(answer.ids) > self.max_answer_length
            )
            has_object = bool(examples[number - first].object)
            counts["objects without tokens"] += has_object and not answer.num_object_tokens
            start = [*tokenizer.prefix, *ids[-room:]]
            yield target_feature(number, start, answer.ids[: self.max_answer_length])

    def _check(self, tokenizer: "Tokenizer", max_length: int) -> None:
        if not tokenizer.causal:
            raise UserError(
                "knowledge_probing: the backbone is an encoder or an encoder-decoder, but the text "
                "before an object must be read by a decoder alone; use a decoder with its LM head, "
                "such as SmolLM2 (`make decoder`), or another task"
            )
        needed = self.max_answer_length + len(tokenizer.prefix) + MIN_TEXT_TOKENS
        if needed > max_length:
            raise UserError(
                f"knowledge_probing: max_answer_length is {self.max_answer_length} and max_length "
                f"{max_length}, which leaves no room for a text of {MIN_TEXT_TOKENS} tokens; raise "
                f"max_length to at least {needed}, or lower max_answer_length"
            )

    def asker(
        self, classes: Sequence[str], tokenizer: "Tokenizer"
    ) -> Callable[[Example, Sequence[int]], RankingQuery]:
        """The function that makes a query of a fact and the tokens of the text before [Y]."""
        candidates = catalog(tuple(classes), tokenizer)

        def ask(example: Example, context: Sequence[int]) -> RankingQuery:
            template = _template_of(example, classes)
            return candidates.query(example.relation, template, example.object, context)

        return ask

    def query_values(self, classes: Sequence[str]) -> Mapping[str, tuple[str, ...]]:
        """The relations; the first has the most training facts."""
        return {"relation": tuple(relations_of(tuple(classes)))}

    def decode(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> RankedObjects:
        """The best objects of the relation, and the ranks of the right object."""
        ranking = window_logits[0].ranking
        assert ranking is not None
        objects = all_objects(tuple(classes))
        return {
            "objects": [objects[number] for number in ranking.best],
            "rank": ranking.rank,
            "rank_all": ranking.rank_all,
            "rank_vocabulary": ranking.rank_vocabulary,
        }

    def predictions(
        self,
        examples: Sequence[Example],
        decoded: Sequence[RankedObjects],
        thresholds: Mapping[str, float],
    ) -> Sequence[RankedObjects]:
        """The decoded objects and ranks."""
        return decoded

    def score(
        self,
        examples: Sequence[Example],
        predictions: Sequence[RankedObjects],
        classes: Sequence[str],
    ) -> Metrics:
        """P@1, P@10 and MRR: `pipeline.metrics.knowledge`."""
        return knowledge.score(_facts(examples, predictions, classes))

    def counts(
        self,
        examples: Sequence[Example],
        predictions: Sequence[RankedObjects],
        classes: Sequence[str],
    ) -> UnitCounts:
        """The counts of each fact."""
        return knowledge.counts(
            [example.id for example in examples], _facts(examples, predictions, classes)
        )

    def decision_logits(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """The log-probabilities [1, K + 1] of the K best objects, and of all others together.

        The last is an upper bound, so that probabilities of objects are rather too low.
        """
        ranking = window_logits[0].ranking
        assert ranking is not None
        return np.array([[*ranking.scores, ranking.rest]])

    def decisions(
        self, example: Example, prediction: RankedObjects, classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """The best object, and whether it is right."""
        return [0], [prediction["objects"][0] == example.object]

    def claims(self, example: Example, prediction: RankedObjects) -> Iterator[Claim]:
        """The best object. There are too many objects for a confusion table."""
        best = prediction["objects"][0]
        right = best == example.object
        yield Claim((0,), "right", "right" if right else "wrong", example.object, best, right)

    def paraphrased(self, example: Example) -> tuple[list[Example], int]:
        """The subject with each template of its relation that a decoder can be asked with."""
        templates = [example.template, *example.paraphrases]
        readable = [text for text in templates if template_problem(text) is None]
        variants = [
            replace(example, id=f"{example.id}/{number}", object="", template=text, paraphrases=())
            for number, text in enumerate(readable)
        ]
        return variants, len(templates) - len(readable)

    def answers(self, predictions: Sequence[RankedObjects]) -> list[str]:
        """The best object of each prediction."""
        return [prediction["objects"][0] for prediction in predictions]

    def samples(self, example: Example, prediction: RankedObjects) -> Iterator[Sample]:
        """The text before the object, and the best objects with the rank of the right one."""
        text = split_template(example.template).text(example.subject)
        objects = ", ".join(prediction["objects"][:NUM_SHOWN])
        rank = prediction["rank"]
        beyond = f"> {BEYOND - 1}" if rank == BEYOND else str(rank)
        yield Sample(f"{text} …", example.object, f"{objects} (rank {beyond})")

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> BestObjects:
        """The best objects with their probabilities."""
        logits = self.decision_logits(example, window_logits, classes)
        probabilities = softmax(logits, temperature_of(thresholds))[0]
        objects = self.decode(example, window_logits, classes)["objects"]
        return BestObjects(
            tuple(map(ScoredObject, objects, map(float, probabilities[: len(objects)])))
        )


TASK = KnowledgeProbing()


def _template_of(example: Example, classes: Sequence[str]) -> str:
    """The template of an example; without one, the most frequent template of its relation."""
    return example.template or relations_of(tuple(classes))[example.relation].templates[0]


def _facts(
    examples: Sequence[Example], predictions: Sequence[RankedObjects], classes: Sequence[str]
) -> list[knowledge.Fact]:
    relations = relations_of(tuple(classes))
    return [
        knowledge.Fact(
            example.relation,
            answer["rank"] or BEYOND,
            answer["rank_all"] or BEYOND,
            answer["rank_vocabulary"],
            relations[example.relation].objects[0] == example.object,
        )
        for example, answer in zip(examples, predictions, strict=True)
    ]


def _example(row: Row, problems: Problems) -> Example | None:
    """The example of a row without its object; None, and problems, if it is not valid."""
    where, before = row["where"], len(problems)
    check_text("subject", row["subject"], where, problems)
    check_name("relation", row["relation"], where, problems)
    relation, template = str(row["relation"]), row.get("template")
    if not relation.strip() or "=" in relation:
        problems.add(
            where,
            f"relation {relation[:40]!r} is not a name; give a text without '='",
            "invalid-relation",
        )
    if template is not None and check_text("template", template, where, problems):
        _check_template(template, where, problems)
    paraphrases = row.get("paraphrases") or ()
    if not is_text_list(paraphrases):
        problems.add(
            where,
            f"paraphrases: found {str(paraphrases)[:40]!r}, expected a list of templates",
            "wrong-type",
        )
    if len(problems) > before:
        return None
    return Example(row["id"], row["subject"], relation, "", template or "", tuple(paraphrases))


def _check_template(template: str, where: str, problems: Problems) -> None:
    if reason := template_problem(template):
        problems.add(where, f"template {template[:80]!r}: {reason}; correct it", "invalid-template")
