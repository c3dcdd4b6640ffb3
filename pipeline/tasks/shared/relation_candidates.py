"""The objects of relations as candidates of a decoder, after the template of a relation.

The classes of a head are "relation=object" and "relation=template".
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

from pipeline.tasks.base.candidates import Candidates, Group, RankingQuery
from pipeline.tasks.shared.cloze_templates import Cloze, is_template, split_template

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

MAX_TREES = 64  # of candidates in memory: one per form of templates


class Relation(NamedTuple):
    """The templates and the objects of a relation, the most frequent first."""

    templates: list[str]
    objects: list[str]


@lru_cache(maxsize=16)
def relations_of(classes: tuple[str, ...]) -> dict[str, Relation]:
    """The relations of the classes "relation=object" and "relation=template"."""
    relations: dict[str, Relation] = {}
    for label in classes:
        name, _, value = label.partition("=")
        relation = relations.setdefault(name, Relation([], []))
        (relation.templates if is_template(value) else relation.objects).append(value)
    return relations


@lru_cache(maxsize=16)
def all_objects(classes: tuple[str, ...]) -> tuple[str, ...]:
    """The distinct objects of all relations: the candidates, in the order of their numbers."""
    relations = relations_of(classes).values()
    return tuple(dict.fromkeys(name for relation in relations for name in relation.objects))


class EncodedObject(NamedTuple):
    """The ids of an object and of the text after it; the first `num_object_tokens` are its own."""

    ids: list[int]
    num_object_tokens: int


def encode_objects(
    clozes: Sequence[Cloze], objects: Sequence[str], tokenizer: "Tokenizer"
) -> list[EncodedObject]:
    """The tokens of each object and of the text after it; without such a text, the end token.

    They do not depend on the subject: only one character before the object is encoded too. A row to
    predict has the object "", and no tokens.
    """
    starts = [cloze.form[0] for cloze in clozes]
    texts = [
        f"{start}{cloze.space}{name}"
        for start, cloze, name in zip(starts, clozes, objects, strict=True)
    ]
    encoded = tokenizer.encode_texts(
        [text + cloze.after for text, cloze in zip(texts, clozes, strict=True)]
    )
    result = []
    for start, text, cloze, name, (ids, offsets) in zip(
        starts, texts, clozes, objects, encoded, strict=True
    ):
        kept = [number for number, offset in enumerate(offsets) if offset[0] >= len(start)]
        ending = [] if cloze.after else tokenizer.suffix[:1]
        num_object_tokens = sum(offsets[number][0] < len(text) for number in kept)
        tokens = [*(ids[number] for number in kept), *ending] if name else []
        result.append(EncodedObject(tokens, num_object_tokens))
    return result


class _Tree:
    """All objects as candidates after templates of one form.

    `tokens` has the token of each object that has only one.
    """

    def __init__(self, encoded: Sequence[EncodedObject]) -> None:
        self.candidates = Candidates([answer.ids for answer in encoded])
        self.tokens = [
            answer.ids[0] if answer.num_object_tokens == 1 else None for answer in encoded
        ]
        self._groups: dict[str, Group] = {}

    def group(self, relation: str, numbers: Sequence[int]) -> Group:
        """The candidates of a relation, which have these numbers."""
        if relation not in self._groups:
            self._groups[relation] = Group(numbers, self.candidates.nodes_of(numbers))
        return self._groups[relation]


class Catalog:
    """The candidates of the classes. Templates of the same form share a tree."""

    def __init__(self, classes: tuple[str, ...], tokenizer: "Tokenizer") -> None:
        self._tokenizer, self._classes = tokenizer, classes
        self._objects = all_objects(classes)
        self._numbers = {name: number for number, name in enumerate(self._objects)}
        self._tree = lru_cache(maxsize=MAX_TREES)(self._make_tree)

    def query(
        self, relation: str, template: str, name: str, context: Sequence[int]
    ) -> RankingQuery:
        """The query of a fact with the object `name` after the tokens `context`."""
        tree = self._tree(*split_template(template).form)
        objects = relations_of(self._classes)[relation].objects
        gold = self._numbers.get(name)
        return RankingQuery(
            context,
            tree.candidates,
            tree.group(relation, [self._numbers[other] for other in objects]),
            gold,
            None if gold is None else tree.tokens[gold],
        )

    def _make_tree(self, last: str, space: str, after: str) -> _Tree:
        clozes = [Cloze(last, space, after)] * len(self._objects)
        return _Tree(encode_objects(clozes, self._objects, self._tokenizer))


@lru_cache(maxsize=4)
def catalog(classes: tuple[str, ...], tokenizer: "Tokenizer") -> Catalog:
    """The candidates of a head with these classes."""
    return Catalog(classes, tokenizer)
