"""Analysis of models: calibration, bootstrap, agreement, probing, perturbations, paraphrases."""
