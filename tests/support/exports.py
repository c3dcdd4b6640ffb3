"""Write texts with spans as annotation tools export them, independently of the readers."""

import io
import json
import re
from collections.abc import Sequence
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

Spans = Sequence[tuple[int, int, str]]
"""Characters [start, end) and label."""
Documents = Sequence[tuple[str, Spans]]


def plain(text: str, spans: Spans) -> dict[str, Any]:
    return {
        "text": text,
        "spans": [{"start": start, "end": end, "label": label} for start, end, label in spans],
    }


def doccano(text: str, spans: Spans) -> dict[str, Any]:
    return {"id": 7, "text": text, "label": list(map(list, spans)), "Comments": []}


def doccano_relations(text: str, spans: Spans) -> dict[str, Any]:
    entities = [
        {"id": number, "label": label, "start_offset": start, "end_offset": end}
        for number, (start, end, label) in enumerate(spans)
    ]
    return {"text": text, "entities": entities, "relations": []}


def prodigy(text: str, spans: Spans) -> dict[str, Any]:
    return plain(text, spans) | {"_input_hash": 1, "_view_id": "ner_manual", "answer": "accept"}


def label_studio(text: str, spans: Spans) -> dict[str, Any]:
    result = [
        {
            "id": f"r{number}",
            "from_name": "label",
            "to_name": "text",
            "type": "labels",
            "value": {"start": start, "end": end, "text": text[start:end], "labels": [label]},
        }
        for number, (start, end, label) in enumerate(spans)
    ]
    annotations = [{"id": 1, "was_cancelled": False, "ground_truth": False, "result": result}]
    return {"id": 7, "data": {"text": text}, "annotations": annotations, "predictions": []}


def brat(text: str, spans: Spans) -> str:
    """The annotation file. brat writes a line break in the text of a span as a space."""
    texts = (re.sub(r"[\r\n]", " ", text[start:end]) for start, end, _ in spans)
    return "".join(
        f"T{number}\t{label} {start} {end}\t{found}\n"
        for number, ((start, end, label), found) in enumerate(zip(spans, texts, strict=True), 1)
    )


def json_lines(records: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def json_list(records: Sequence[dict[str, Any]]) -> bytes:
    return json.dumps(records, indent=1).encode()


def parquet(records: Sequence[dict[str, Any]]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(records), file)
    return file.getvalue()


@cache
def blank_pipeline() -> Any:
    """spaCy's tokenizer for English."""
    import spacy

    return spacy.blank("en")


def doc_bin(documents: Documents, group: str | None = None) -> bytes:
    """A DocBin of spaCy; it needs the library spaCy. The words are those of a blank pipeline.

    The spans must not cut a word. With `group`, they are a span group.
    """
    from spacy.tokens import DocBin

    nlp, stored = blank_pipeline(), DocBin()
    for text, spans in documents:
        doc = nlp.make_doc(text)
        found = [doc.char_span(start, end, label=label) for start, end, label in spans]
        if group is None:
            doc.ents = found
        else:
            doc.spans[group] = found
        stored.add(doc)
    return bytes(stored.to_bytes())
