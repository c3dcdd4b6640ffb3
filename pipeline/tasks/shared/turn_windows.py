"""Windows of dialogue turns: the system's text, the user's text, and the names of the slots."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pipeline.errors import UserError
from pipeline.words import split_words

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

MIN_TURN_TOKENS = 16  # of a window


class EncodedText(NamedTuple):
    """A text, the ids of its tokens, and their characters [start, end)."""

    text: str
    ids: list[int]
    offsets: list[tuple[int, int]]


class EncodedTurn(NamedTuple):
    """The system's and the user's text of a turn."""

    system: EncodedText
    user: EncodedText

    @property
    def num_tokens(self) -> int:
        """The number of tokens of both texts."""
        return len(self.system.ids) + len(self.user.ids)

    def kept(self, room: int) -> tuple[range, range]:
        """The tokens of the system's and the user's text in a window of `room` tokens for both.

        Of a turn that is too long, the end of the user's text and the beginning of the system's are
        cut.
        """
        num_system, num_user = len(self.system.ids), min(len(self.user.ids), room)
        return range(max(0, num_system + num_user - room), num_system), range(num_user)


class TurnWord(NamedTuple):
    """A word of a turn: the characters [start, end) of `turn_text`, and the token of its tag."""

    start: int
    end: int
    position: int


def turn_text(system: str, user: str) -> str:
    """The texts of a turn as one. The user's begins at character len(system) + 1."""
    return f"{system}\n{user}"


def encoded_turns(
    system: Sequence[str], user: Sequence[str], tokenizer: "Tokenizer"
) -> Iterator[EncodedTurn]:
    """The turns of a dialogue."""
    encoded = (
        [
            EncodedText(text, *pair)
            for text, pair in zip(texts, tokenizer.encode_texts(texts), strict=True)
        ]
        for texts in (system, user)
    )
    return map(EncodedTurn, *encoded)


def room_for_turn(queries: Sequence[Sequence[int]], tokenizer: "Tokenizer", max_length: int) -> int:
    """The number of tokens for the two texts of a turn."""
    parts = (tokenizer.prefix, tokenizer.middle, tokenizer.middle, tokenizer.suffix, *queries)
    room = max_length - sum(map(len, parts))
    if room < MIN_TURN_TOKENS:
        raise UserError(
            f"dialogue_state_tracking: max_length is {max_length}, which leaves {room} tokens for "
            f"a turn beside its {len(queries)} slots; raise it to at least "
            f"{max_length - room + MIN_TURN_TOKENS}"
        )
    return room


def turn_window(
    turn: EncodedTurn, queries: Sequence[Sequence[int]], room: int, tokenizer: "Tokenizer"
) -> tuple[list[int], list[int], list[int]]:
    """The ids [N], the token types [N], and the positions of the last sub-words of the queries.

    The texts of the system and the user have at most `room` tokens together.
    """
    system, user = turn.kept(room)
    head = [*tokenizer.prefix, *turn.system.ids[system.start :], *tokenizer.middle]
    ids, positions = [*head, *turn.user.ids[: user.stop], *tokenizer.middle], list[int]()
    for query in queries:
        ids += query
        positions.append(len(ids) - 1)
    ids += tokenizer.suffix
    types = [0] * len(head) + [tokenizer.second_type] * (len(ids) - len(head))
    return ids, types, positions


def turn_words(turn: EncodedTurn, room: int, tokenizer: "Tokenizer") -> tuple[list[TurnWord], int]:
    """The words of a turn that are whole in its window; and how many of them are the system's."""
    system, user = turn.kept(room)
    first = len(tokenizer.prefix)
    system_words = list(_words(turn.system, system, 0, first, tokenizer.causal))
    shift, first = len(turn.system.text) + 1, first + len(system) + len(tokenizer.middle)
    user_words = _words(turn.user, user, shift, first, tokenizer.causal)
    return [*system_words, *user_words], len(system_words)


def _words(
    encoded: EncodedText, kept: range, shift: int, first: int, causal: bool
) -> Iterator[TurnWord]:
    """The words of a text whose tokens are all among those `kept`.

    `shift` is the character of the turn, and `first` the position in the window, at which they
    begin. The tag of a word is at its first token, with a causal backbone at its last. Words that
    share a token are one word, because a token has one tag.
    """
    words: list[tuple[int, int, list[int]]] = []
    for word in split_words(encoded.text, "punctuation"):
        start, end = word.start, word.end
        tokens = [token for token, (a, b) in enumerate(encoded.offsets) if a < end and start < b]
        if words and tokens and words[-1][2][-1] >= tokens[0]:
            start, _, previous = words.pop()
            tokens = previous + tokens
        if tokens:
            words.append((start, end, tokens))
    for start, end, tokens in words:
        if tokens[0] in kept and tokens[-1] in kept:
            token = tokens[-1 if causal else 0]
            yield TurnWord(start + shift, end + shift, first + token - kept.start)
