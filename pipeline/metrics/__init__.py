"""Scores in percent, computed from predictions and references alone, as the official scripts do.

`spans` follows conlleval, `roles` follows srl-eval of CoNLL-2005, `answers` follows the SQuAD 1.1
and 2.0 scripts, and `classification` follows the SuperGLUE script.
"""
