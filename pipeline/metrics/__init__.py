"""Scores in percent, computed from predictions and references alone, as the official scripts do.

- `spans`: conlleval
- `roles`: srl-eval of CoNLL-2005
- `answers`: the scripts of SQuAD 1.1 and 2.0, CMRC 2018 and MLQA
- `classification`: the SuperGLUE script
- `frames`: intents and slots (Goo et al. 2018)
- `dialogue_states`: WoZ 2.0 (Mrkšić et al. 2017)
- `generation`: the E2E scorer
- `slots`: slot errors of generated texts, by patterns of this project
- `knowledge`: LAMA (Petroni et al. 2019)
"""
