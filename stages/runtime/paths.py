"""All paths in a project's folder. Other modules of `stages` and `deep_prompt` import them.

The files of a run are in ARM/TASK below ARTIFACTS, RUNS, RESOURCE_USAGE, RESULTS and PREDICTIONS.
The files of a run that is repeated with another seed are in repeat/SEED/ARM/TASK.
"""

from pathlib import Path

from pipeline.arms import ArmName
from pipeline.params import PARAMS_FILE

PARAMS = Path(PARAMS_FILE)
CLUSTER = Path("cluster.yaml")
SEARCH_SPACE = Path("search.yaml")
RECIPES = Path("data_recipes")
PRESETS = Path("presets")
DVC_LOCK = Path("dvc.lock")
DVC_RWLOCK = Path(".dvc/tmp/rwlock")

WORLD = Path("data/world")
CORPORA = Path("data/corpora")
EXAMPLES = Path("data/examples")
PROBLEMS = Path("data/problems")
CODE_FILES = Path("data/code_files")
BACKBONE_FILES = Path("data/backbone_files.json")
FEATURES = Path("data/features")
MIXTURE_CORPORA = Path("data/mixture_corpora")
MIXTURES = Path("data/mixtures")
TRAINING_PARAMS = Path("data/training_params")
ANSWER_LENGTHS = Path("data/answer_lengths")
MIXTURE_STEPS = Path("data/mixture_steps")
PROMPTS = Path("data/prompts.json")

ARTIFACTS = Path("artifacts")
ZOO_ARTIFACTS = ARTIFACTS / "zoo"
MODELS = Path("models")
RUNS = Path("runs")
RESOURCE_USAGE = Path("resource_usage")  # ignored by git and DVC, because it varies between runs
RESULTS = Path("results")
PREDICTIONS = Path("predictions")
REPORT = Path("report")
TUNING = Path("tuning")

WORK = Path(".work")
LAUNCHES = WORK / "launch"
STOPPED = WORK / "stopped"
"""Tells a job script that a stop signal ended the run, so that the job must be queued again."""
LOGS = Path("logs")


def recipe_of(task: str) -> Path:
    """The recipe of a task's corpus."""
    return RECIPES / f"{task}.yaml"


def run_folder(arm: ArmName, task: str, seed: str = "") -> Path:
    """The folder of a run below ARTIFACTS and RUNS. With `seed`, the run is a repetition."""
    return Path("repeat", seed, arm, task) if seed else Path(arm, task)
