"""Classification with a verbalizer: the LM head of the backbone predicts a word for the label.

P-tuning v2 (arXiv 2110.07602) compares this head with a linear head on [CLS].
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipeline.errors import UserError
from pipeline.tasks.sequence_classification import SequenceClassification

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer


class VerbalizedClassification(SequenceClassification):
    """Sequence classification with the LM head. The recipe names a word for each label."""

    head = "verbalizer"

    def ending(self, tokenizer: "Tokenizer") -> list[int]:
        """The mask token and the suffix. A causal backbone predicts the next word and has neither.

        Raises UserError if the tokenizer has no mask token.
        """
        if tokenizer.causal:
            return []
        if tokenizer.mask_token_id is None:
            raise UserError(
                "verbalized_classification: the backbone's tokenizer has no mask token; use "
                "sequence_classification"
            )
        return [tokenizer.mask_token_id, *tokenizer.suffix]

    def position(self, ids: Sequence[int], tokenizer: "Tokenizer") -> int:
        """The index of the mask token; for a causal backbone, of the last token."""
        return len(ids) - 1 - (0 if tokenizer.causal else len(tokenizer.suffix))


TASK = VerbalizedClassification()
