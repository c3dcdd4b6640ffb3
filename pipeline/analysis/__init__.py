"""Beyond one score: calibration, bootstrap, agreement, probing, perturbations and paraphrases."""
