"""Scores, as the official scripts compute them: of predictions and references alone, in percent.

`spans` is conlleval, `roles` is srl-eval of CoNLL-2005, `answers` is the SQuAD 1.1 and 2.0 script.
"""

from pipeline.metrics.base import Metrics, UnitCounts

__all__ = ["Metrics", "UnitCounts"]
