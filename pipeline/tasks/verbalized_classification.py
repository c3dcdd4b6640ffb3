"""Classification by a verbalizer: the backbone's own LM head guesses the word behind the texts, and words stand for labels."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.tasks.sequence_classification import SequenceClassification

if TYPE_CHECKING:  # for its type only: preparing a corpus needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer


class VerbalizedClassification(SequenceClassification):
    """As P-tuning v2 compares with a linear head on [CLS] (arXiv 2110.07602). Recipes say which word stands for each label."""

    head = "verbalizer"

    def ending(self, tokenizer: "Tokenizer") -> list[int]:
        """A mask for a backbone that fills masks; nothing for a causal one, which guesses the next word."""
        if tokenizer.causal:
            return []
        if tokenizer.mask is None:
            raise UserError(
                "verbalized_classification: the backbone's tokenizer has no mask; use sequence_classification"
            )
        return [tokenizer.mask, *tokenizer.suffix]

    def position(self, ids: Sequence[int], tokenizer: "Tokenizer") -> int:
        """The mask; a causal backbone's last token."""
        return len(ids) - 1 - (0 if tokenizer.causal else len(tokenizer.suffix))


TASK = VerbalizedClassification()
