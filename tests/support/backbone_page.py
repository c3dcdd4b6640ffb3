"""The page docs/backbones.md, from the outcomes of tests and of `tests.support.all_types`."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import transformers

from pipeline.pretrained.families import ENCODER_DECODERS, FAMILIES
from tests.support.all_types import ADMITTED, NOT_RUN

Cells = Mapping[str, Mapping[str, str]]
"""Family -> name of a test -> outcome."""

INTRODUCTION = """\
# Backbones

`make backbones` renders this page from runs of tiny random models; do not edit it.

Of the {total} model types of transformers {version} that read a text, {num_reference} are compared
with a reference, {num_admitted} are admitted by checks, {num_refused} are refused, and
{num_not_run} could not be run. A model type of none of these groups is checked when it is loaded.
`deep-prompt check-backbone SOURCE` runs the checks on a model and shows the differences.

## Compared with a reference: {num_reference}

The references are independent implementations of the families in tests/support/references.py; the
tests are in tests/pipeline/model/test_families.py. T5, mT5 and UMT5 are used without their decoder.
"""

ENCODER_DECODER_TEXT = """
## Whole encoder-decoders: {num_encoder_decoders}

With `decoder: true` in the params of the backbone, these are loaded with their decoder: {whole}.
tests/pipeline/model/test_encoder_decoder.py compares the states and gradients under prompts in all
three kinds of attention with references.
"""

ADMITTED_TEXT = """
## Admitted by checks: {num_admitted}

These model types use the attention interface of transformers. When such a model is loaded, forward
passes in float32 on random texts must be equal within 1e-4 of the largest value:

- the plain hidden states and those of the model's own (eager) attention;
- each text of a padded batch and the text alone, with and without a prompt;
- the plain hidden states and those under a prompt with the keys and values of the text itself;
- in a causal model, the hidden states of a text and those under a prompt that is its beginning.

Also, a prompt must have a gradient in every layer, the attention must take no argument that prompts
ignore, and the language modeling head of a verbalizer must give the logits of the whole model. The
list has the outcomes of tiny models. A released model may have other layers, and is checked itself.

{names}

## Refused: {num_refused}

| model type | reason |
|---|---|
{refused}

## Not run: {num_not_run}

No tiny model of these types could be made. The checks decide when a model is loaded.

| model type | reason |
|---|---|
{not_run}
"""


def write_page(
    path: Path, columns: Mapping[str, str], cells: Cells, outcomes: Mapping[str, str]
) -> None:
    """Write the page.

    `columns` has the title of each test, `outcomes` the outcome of each model type.
    """
    admitted = [name for name, text in outcomes.items() if text == ADMITTED]
    not_run = {name: text for name, text in outcomes.items() if text.startswith(NOT_RUN)}
    refused = {
        name: text
        for name, text in outcomes.items()
        if name not in not_run and name not in set(admitted)
    }
    values = {
        "total": len(outcomes) + len(FAMILIES),
        "version": transformers.__version__,
        "num_reference": len(FAMILIES),
        "num_encoder_decoders": len(ENCODER_DECODERS),
        "whole": ", ".join(f"`{name}`" for name in ENCODER_DECODERS),
        "num_admitted": len(admitted),
        "num_refused": len(refused),
        "num_not_run": len(not_run),
        "names": ", ".join(f"`{name}`" for name in sorted(admitted)),
        "refused": "\n".join(_rows(refused)),
        "not_run": "\n".join(_rows(not_run)),
    }
    text = (
        INTRODUCTION.format(**values)
        + _table(columns, cells)
        + ENCODER_DECODER_TEXT.format(**values)
        + ADMITTED_TEXT.format(**values)
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _table(columns: Mapping[str, str], cells: Cells) -> str:
    checks = [name for name in columns if name in cells["bert"]]
    lines: Sequence[str] = [
        "",
        f"| family | attention | {' | '.join(columns[name] for name in checks)} |",
        "|---" * (len(checks) + 2) + "|",
        *(
            f"| {family} | {'causal' if FAMILIES[family].causal else 'bidirectional'} | "
            f"{' | '.join(cells[family].get(name, '-') for name in checks)} |"
            for family in sorted(cells)
            if family in FAMILIES
        ),
    ]
    return "\n".join(lines) + "\n"


def _rows(reasons: Mapping[str, str]) -> list[str]:
    return [
        f"| `{name}` | {reason.removeprefix(NOT_RUN).replace('|', '/')} |"
        for name, reason in sorted(reasons.items())
    ]
