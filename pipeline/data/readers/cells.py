"""Lists in the cells of tables: JSON, or what Python and numpy print. No code is evaluated."""

import ast
import io
import tokenize
from typing import Any

from pipeline.data.readers.json_values import decode
from pipeline.errors import Problems, abbreviate

_PARSE_ERRORS = (ValueError, SyntaxError, TypeError, MemoryError, RecursionError)
_VALUES = (tokenize.STRING, tokenize.NUMBER, tokenize.NAME)


def parse_list(cell: str, where: str, problems: Problems) -> Any:
    """The list (or mapping) in a cell, or else its text.

    A list in the notation of Python (`['a', 'b']`) or numpy (`['a' 'b']`) adds a warning.
    """
    try:
        return decode(cell)
    except ValueError:
        pass
    if not cell.lstrip().startswith(("[", "(", "{")):
        return cell
    try:
        notation, text = _with_commas(cell.strip())
        value = ast.literal_eval(text)
    except (tokenize.TokenError, *_PARSE_ERRORS):
        return cell
    problems.add(
        where,
        f"the list {abbreviate(cell, 40)} is in {notation}'s notation, not JSON, and is read; "
        "write JSON to be sure of quotes and escapes",
        "list-notation",
    )
    return list(value) if isinstance(value, tuple) else value


def _with_commas(text: str) -> tuple[str, str]:
    """The notation, and the text with a comma between items that only space separates.

    numpy prints no commas, and Python would join adjacent texts to one. Raises ValueError if only
    some items are separated by commas.
    """
    result, has_commas, previous = list[str](), False, -1
    num_added = 0
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in (tokenize.NL, tokenize.NEWLINE, tokenize.ENDMARKER):
            continue
        if token.type in _VALUES and previous in _VALUES:
            result.append(",")
            num_added += 1
        has_commas |= token.string == ","
        result.append(token.string)
        previous = token.type
    if num_added and has_commas:
        raise ValueError("only some items are separated by commas")
    return ("numpy" if num_added else "Python"), " ".join(result)
