"""spaCy's binary format DocBin (`.spacy`): documents with tokens and entities.

The library spaCy reads it. The user data of the documents is not decoded.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.data.readers.base import READ_ERRORS, Source, damaged_message, open_file
from pipeline.data.readers.documents import Document
from pipeline.data.readers.spans import LabeledSpan, span_title
from pipeline.errors import Problems, UserError
from pipeline.words import Word

if TYPE_CHECKING:
    from spacy.tokens import Doc

UNANNOTATED = "documents without entity annotation"  # their name in `Problems.skipped`
_FORMAT_ERRORS = (  # of spaCy for a file that is not a DocBin
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)


def documents(source: Source, group: str | None, problems: Problems) -> Iterator[Document]:
    """The documents of a file with their entities, or with the spans of a span group.

    A document without any entity annotation is skipped and counted. Raises UserError if the
    library spaCy is missing.
    """
    path = Path(str(source))
    try:
        with open_file(path) as file:
            content = file.read()
    except READ_ERRORS as error:
        problems.add(str(path), damaged_message(error), "damaged-file", hides=True)
        return
    try:
        for number, doc in enumerate(_docs(content), start=1):
            document = _document(doc, f"{path}: document {number}", group, problems)
            if document is not None:
                yield document
    except ImportError:
        # Not a problem of the file: nothing may record it, because the library may be there later.
        raise UserError(
            f"{path}: the library spaCy is missing; install it with pip install "
            "'deep-prompt[spacy]'"
        ) from None
    except _FORMAT_ERRORS as error:
        problems.add(
            str(path),
            f"not valid DocBin of spaCy: {str(error).partition('. ')[0][:120]}; write it again "
            "with DocBin(docs=docs).to_disk(path)",
            "not-docbin",
            hides=True,
        )


def _docs(content: bytes) -> Iterator["Doc"]:
    from spacy.tokens import DocBin  # noqa: PLC0415  (slow import, optional)
    from spacy.vocab import Vocab  # noqa: PLC0415

    stored = DocBin().from_bytes(content)
    stored.user_data = []
    yield from stored.get_docs(Vocab())


def _document(doc: "Doc", where: str, group: str | None, problems: Problems) -> Document | None:
    if group is None and not doc.has_annotation("ENT_IOB"):
        problems.skipped[UNANNOTATED] += 1
        return None
    if group is not None and group not in doc.spans:
        problems.add(
            where,
            f"span group {group!r} is missing; found {', '.join(doc.spans) or 'none'}: add it, or "
            "correct spans in the recipe's fields",
            "missing-key",
        )
        return None
    name = "ents" if group is None else f"spans[{group!r}]"
    spans = tuple(
        LabeledSpan(
            span.label_,
            span.start_char,
            span.end_char,
            where,
            span_title(f"{name}[{number}]", span.label_, span.text, span.start_char, span.end_char),
        )
        for number, span in enumerate(doc.ents if group is None else doc.spans[group])
    )
    words = tuple(
        Word(token.text, token.idx, token.idx + len(token)) for token in doc if token.text.strip()
    )
    return Document(where, doc.text, spans, None, words)
