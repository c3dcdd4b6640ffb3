"""The score of a model on a test split, with thresholds that are fitted on a validation split."""

from pipeline.evaluation.evaluate import EvalSet, decode, score
from pipeline.model.prompted_model import PromptedModel


def primary_score(
    model: PromptedModel, validation: EvalSet, test: EvalSet, primary: str, pad_token_id: int
) -> float:
    """The metric `primary` in percent on `test`, of the head with index 0."""
    decoded = decode(model, validation, 0, pad_token_id)
    thresholds = validation.task.fit_thresholds(validation.examples, decoded)
    return float(score(test, decode(model, test, 0, pad_token_id), thresholds).overall[primary])
