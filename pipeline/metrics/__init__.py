"""Scores, as the official scripts compute them: plain Python on predictions and references, in percent.

`spans` is conlleval, `roles` is srl-eval of CoNLL-2005, `answers` is the SQuAD 1.1 and 2.0 script.
"""

from pipeline.metrics.base import Metrics

__all__ = ["Metrics"]
