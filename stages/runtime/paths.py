"""Where everything is in a project's folder: no other module of `stages` and `deep_prompt` spells
these paths.

A run is at ARM/TASK below ARTIFACTS, RUNS, RESOURCE_USAGE, RESULTS and PREDICTIONS, and at
repeat/SEED/ARM/TASK when it repeats another.
"""

from pathlib import Path

from pipeline.arms import ArmName
from pipeline.params import PARAMS_FILE

PARAMS = Path(PARAMS_FILE)
CLUSTER = Path("cluster.yaml")
SEARCH_SPACE = Path("search.yaml")
RECIPES = Path("data_recipes")
PRESETS = Path("presets")
DVC_YAML = Path("dvc.yaml")
DVC_LOCK = Path("dvc.lock")
DVC_RWLOCK = Path(".dvc/tmp/rwlock")

WORLD = Path("data/world")
CORPORA = Path("data/corpora")
EXAMPLES = Path("data/examples")
PROBLEMS = Path("data/problems")
FEATURES = Path("data/features")
MIXTURE_CORPORA = Path("data/mixture_corpora")
MIXTURES = Path("data/mixtures")
TRAINING_PARAMS = Path("data/training_params")

ARTIFACTS = Path("artifacts")
MODELS = Path("models")
RUNS = Path("runs")
RESOURCE_USAGE = Path("resource_usage")  # in neither git nor DVC: it differs from run to run
RESULTS = Path("results")
PREDICTIONS = Path("predictions")
REPORT = Path("report")
TUNING = Path("tuning")

WORK = Path(".work")
LAUNCHES = WORK / "launch"
STOPPED = (
    WORK / "stopped"
)  # a job script finds this file when the run was asked to stop and must be queued again
LOGS = Path("logs")


def recipe_of(task: str) -> Path:
    """The recipe of a task's corpus."""
    return RECIPES / f"{task}.yaml"


def run_folder(arm: ArmName, task: str, seed: str = "") -> Path:
    """A run's folder below ARTIFACTS, RUNS and the like; with `seed`, that of a run that repeats
    another.
    """
    return Path("repeat", seed, arm, task) if seed else Path(arm, task)
