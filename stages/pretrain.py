"""pretrain@MIXTURE: train one shared deep prompt, and a head for each corpus, on all of a mixture's corpora (MPT-2)."""


from pipeline.artifacts.artifact import save_artifact
from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import Params, TrainParams
from pipeline.training.setup import Beginning, TaskData, check_positions, check_stored, describe, heads_for, new_prompt
from stages.runtime.entry import say, say_read, say_wrote
from stages.runtime.launcher import launch
from stages.runtime.params import load_params, mixture_of
from stages.runtime.paths import ARTIFACTS, EXAMPLES, FEATURES, MIXTURES, RUNS
from stages.training.run import fit, load_backbone, realized, write_run


def pretrain(mixture: str) -> None:
    """Write artifacts/pretrain/MIXTURE and runs/pretrain/MIXTURE."""
    params = load_params()
    mixture_of(params, mixture)
    training = params.pretrain[mixture]
    begun = begin(mixture, training, params)
    result, writes = fit(f"pretrain-{mixture}", "multitask", begun, training, params)
    if writes:
        artifact, curves = ARTIFACTS / "pretrain" / mixture, RUNS / "pretrain" / mixture
        save_artifact(artifact, begun.model, describe("multitask", begun, training, params))
        write_run(curves, result, "multitask", training, params.seed, realized(begun, training, params.seed, result))
        say(f"best validation {result.best_score:.2f} at step {result.best_step}")
        say_wrote(artifact, curves)


def begin(mixture: str, training: TrainParams, params: Params) -> Beginning:
    """What the shared prompt's training begins with. Raises UserError where the mixture was made of other features."""
    source = MIXTURES / f"{mixture}.json"
    mixed = load_json(source)
    corpora, features, dropped = mixed["corpora"], mixed["features"], mixed["dropped"]
    tasks = [TaskData.load(FEATURES / name, EXAMPLES / name, training.validation_rows, dropped.get(name, ())) for name in corpora]
    stale = [task.name for task in tasks if task.summary != features[task.name]]
    if stale:
        raise UserError(f"{source}: made from other features of {', '.join(stale)} than are there now; run members and mix again")
    say_read(source, *(task.train.path for task in tasks))
    backbone = load_backbone(params.backbone, [task.words for task in tasks], training.precision)
    prompt = new_prompt("multitask", backbone, tasks, training, params.seed)
    check_positions(prompt, backbone, params, corpora)
    check_stored(f"pretrain.{mixture}", prompt, backbone, training)
    model = PromptedModel(backbone, prompt, heads_for(tasks, backbone.hidden_size, params.seed), train_backbone=False)
    return Beginning(model, tasks, [corpora[task.name]["rate"] for task in tasks], {"dropped": dropped})


if __name__ == "__main__":
    launch(pretrain)
