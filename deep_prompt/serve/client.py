"""A client of the server, for `deep-prompt predict --server`. It needs no extra package."""

import http.client
import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from pipeline.errors import UserError
from pipeline.tasks.base.row import Row

MAX_TRIES = 30
Json = dict[str, Any]


def predict_remotely(
    url: str, rows: Iterable[Row | UserError], chunk: int
) -> Iterator[Json | UserError]:
    """The answer to each row, in order: its values, or the problems of the row.

    A row has its place in `where`; a UserError in place of a row is its own answer. `chunk` rows
    are sent at a time, and fewer if the server refuses that many. Raises UserError if the server
    cannot be reached.
    """
    number, remaining = 0, iter(rows)
    while numbered := list(islice(remaining, chunk)):
        sent = [row for row in numbered if not isinstance(row, UserError)]
        answers = iter(_answers(url, sent))
        for row in numbered:
            yield row if isinstance(row, UserError) else _answer(row, next(answers), number)
            number += 1


def _answers(url: str, rows: Sequence[Row]) -> list[Json]:
    if not rows:
        return []
    bare = [{key: value for key, value in row.items() if key != "where"} for row in rows]
    try:
        answers: list[Json] = _post(f"{url.rstrip('/')}/v1/predict", {"rows": bare})["answers"]
    except _RefusedError as error:
        if len(rows) == 1:
            return [{"row": 0, "errors": error.problems}]
        half = len(rows) // 2
        return _answers(url, rows[:half]) + _answers(url, rows[half:])
    return answers


def _answer(row: Row, answer: Json, number: int) -> Json | UserError:
    if "errors" in answer:
        place = f"rows[{answer['row']}]"
        return UserError(*(_of_row(text, place, row["where"]) for text in answer["errors"]))
    id_ = number if row.get("id") is None else row["id"]
    cut = {"cut": answer["cut"]} if "cut" in answer else {}
    return {"id": id_, "task": answer["task"], "result": answer["result"]} | cut


def _of_row(problem: str, place: str, where: str) -> str:
    """The problem with the place of its row in the user's file."""
    return problem.replace(place, where, 1) if place in problem else f"{where}: {problem}"


class _RefusedError(Exception):
    """The server refuses a request because of its rows, or because of their number."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__(*problems)
        self.problems = problems


def _post(url: str, value: Json) -> Json:
    """Send JSON. While the server is busy (status 503), try again after the time that it asks.

    Raises _RefusedError for the status 400, 413 or 422, and UserError for any other error.
    """
    for _ in range(MAX_TRIES):
        try:
            # The check of the scheme is in `checked_url`.
            request = urllib.request.Request(
                url, json.dumps(value).encode(), {"content-type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=120) as response:
                result: Json = json.load(response)
                return result
        except urllib.error.HTTPError as error:
            problems = _problems(error)
            if error.code in (400, 413, 422) and problems:
                raise _RefusedError(problems) from None
            if error.code != 503:
                details = f": {'; '.join(problems)}" if problems else "; check the URL"
                raise UserError(f"--server: {url}: status {error.code}{details}") from None
            time.sleep(_retry_seconds(error))
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise UserError(
                f"--server: {url}: no answer: {reason}; start it with deep-prompt serve, and check "
                "the URL"
            ) from None
    raise UserError(f"--server: {url} is busy; try again later, or reduce --chunk-rows")


def _retry_seconds(error: urllib.error.HTTPError) -> float:
    after = error.headers.get("retry-after", "")
    return min(float(after), 60.0) if after.isdecimal() else 1.0


def _problems(error: urllib.error.HTTPError) -> list[str]:
    """The problems that the server names; none if this is not a server of this project."""
    try:
        return [str(problem) for problem in json.load(error)["errors"]]
    except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
        return []


def checked_url(url: str) -> str:
    """The URL of a server. Raises UserError unless it begins with http:// or https://."""
    if not url.startswith(("http://", "https://")):
        raise UserError(f"--server: found {url!r}; give a URL such as http://127.0.0.1:8000")
    return url
