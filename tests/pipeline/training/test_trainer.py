"""Training through the real engine: a run is a function of its inputs, interrupted or not."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from pipeline.arms import ARMS, ArmName
from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.process_group import process_group
from pipeline.errors import Diverged, Stopped, UserError
from pipeline.features.table import FeatureTable
from pipeline.mixing.batches import Batch, TrainBatches, collate
from pipeline.mixing.rates import RATE_SCALE
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt, Projection, TaskFactors
from pipeline.model.prompted_model import PromptedModel
from pipeline.model.scale_shift import new_scale_shift
from pipeline.params import TrainParams
from pipeline.training.callbacks import CallbackList, Scores, TrainingCallback, TrainingRun
from pipeline.training.checkpoint import load_checkpoint
from pipeline.training.engine import micro_batches_per_rank
from pipeline.training.optim import lr_multiplier, optimizer
from pipeline.training.trainer import BALANCE_EPSILON, steps_of, train
from tests.support import tiny

STEPS = 9


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    with process_group(Ranks(), 60):
        yield Ranks()


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[FeatureTable]:
    folder = tmp_path_factory.mktemp("tables")
    return [tiny.table(folder, "classes", 40, 1), tiny.table(folder, "positions", 25, 2)]


def params(arm: ArmName = "multitask", **changes: Any) -> TrainParams:
    rates = {
        f"{part}_lr": {"prompt": 0.02, "head": 0.01, "backbone": 0.001, "lora": 0.01}[part]
        for part in ARMS[arm].parts
    }
    return TrainParams(
        **{
            "epochs": 2.0,
            **rates,
            "tokens_per_micro_batch": 64,
            "micro_batches_per_step": 2,
            "num_validations": 3,
        }
        | changes
    )


def batches_of(tables: list[FeatureTable], chosen: TrainParams) -> TrainBatches:
    return TrainBatches(
        tables,
        [RATE_SCALE * 2 // 3, RATE_SCALE - RATE_SCALE * 2 // 3],
        chosen.tokens_per_micro_batch,
        chosen.micro_batches_per_step,
        seed=4,
    )


def mean_magnitudes(model: PromptedModel) -> Scores:
    """Scores that depend on the trained weights."""
    return {
        "ner": float(model.heads.weight.detach().abs().mean()),
        "qa": float(model.heads.bias.detach().abs().mean()),
    }


class Fit:
    """One training run of a fresh tiny model."""

    def __init__(
        self,
        tables: list[FeatureTable],
        checkpoints: Path,
        ranks: Ranks,
        arm: ArmName = "multitask",
        validate: Callable[[PromptedModel], Scores] = mean_magnitudes,
        callback: TrainingCallback | None = None,
        seconds: float = 1e9,
        prompt: Callable[[], DeepPrompt] | None = None,
        stopping: Callable[[], bool] = lambda: False,
        model: PromptedModel | None = None,
        **changes: Any,
    ) -> None:
        chosen = params(arm, **changes)
        self.model = model or tiny.prompted(arm)
        if prompt is not None:
            self.model.prompt = prompt()
        self.callback = callback or tiny.TrainingCallback()
        self.batches = batches_of(tables, chosen)
        self._train = lambda: train(
            self.model,
            arm,
            self.batches,
            chosen,
            names=["ner", "qa"],
            pad_token_id=0,
            validate=validate,
            checkpoints=checkpoints,
            ranks=ranks,
            callback=self.callback,
            stopping=stopping,
            cluster=Cluster(checkpoint_minutes=seconds / 60 + 1e-9),
        )

    def __call__(self) -> TrainingRun:
        return self._train()

    def values(self) -> dict[str, bytes]:
        return {
            name: value.detach().numpy().tobytes()
            for name, value in self.model.trainable_state().items()
        }


def untrained() -> dict[str, bytes]:
    """The initial values of every run in this file."""
    return {
        name: value.detach().numpy().tobytes()
        for name, value in tiny.prompted("multitask").trainable_state().items()
    }


def curves(run: TrainingRun) -> dict[str, object]:
    """The fields of a run that are a function of its inputs."""
    measured = ("seconds", "resource_usage")
    return {name: value for name, value in vars(run).items() if name not in measured}


# A function of its inputs


@pytest.fixture(scope="module")
def uninterrupted(
    tables: list[FeatureTable], ranks: Ranks, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Fit, TrainingRun]:
    """A run without interruption."""
    fit = Fit(tables, tmp_path_factory.mktemp("uninterrupted"), ranks)
    run = fit()
    assert run.steps == steps_of(fit.batches, 2.0) == STEPS == len(run.train)
    return fit, run


def test_two_runs_give_equal_bytes(
    uninterrupted: tuple[Fit, TrainingRun], tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    fit = Fit(tables, tmp_path, ranks)
    assert curves(fit()) == curves(uninterrupted[1])
    assert fit.values() == uninterrupted[0].values()
    assert all(
        value != start
        for value, start in zip(fit.values().values(), untrained().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("at", "seconds", "resumed"), [(4, 1e9, [3]), (8, 1e9, [6]), (5, 0.0, [5]), (2, 1e9, [])]
)
def test_an_interrupted_run_has_the_result_of_an_uninterrupted_run(
    at: int,
    seconds: float,
    resumed: list[int],
    uninterrupted: tuple[Fit, TrainingRun],
    tables: list[FeatureTable],
    ranks: Ranks,
    tmp_path: Path,
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Fit(tables, tmp_path, ranks, callback=tiny.TrainingCallback(at), seconds=seconds)()
    fit = Fit(tables, tmp_path, ranks, seconds=seconds)
    run = fit()
    assert [line for line in fit.callback.lines if "resum" in line] == [
        f"resuming at step {step} of 9" for step in resumed
    ]
    assert fit.callback.steps == list(range((resumed or [0])[0] + 1, STEPS + 1))
    assert curves(run) == curves(uninterrupted[1])
    assert fit.values() == uninterrupted[0].values()


def test_a_resumed_run_restores_lora_factors(
    tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    uninterrupted = Fit(tables, tmp_path / "uninterrupted", ranks, "lora")
    run = uninterrupted()
    with pytest.raises(KeyboardInterrupt):
        Fit(tables, tmp_path / "a", ranks, "lora", callback=tiny.TrainingCallback(5))()
    resumed = Fit(tables, tmp_path / "a", ranks, "lora")
    assert curves(resumed()) == curves(run)
    assert resumed.callback.steps == list(range(4, STEPS + 1))
    assert resumed.values() == uninterrupted.values()
    assert run.train[0].keys() >= {"lora_lr", "head_lr"}


@pytest.mark.parametrize(
    ("family", "kind"), [("bart", "target"), ("llama", "language_model"), ("t5", "target")]
)
def test_a_mixture_of_tags_and_generated_text_resumes(
    family: str, kind: str, ranks: Ranks, tmp_path: Path
) -> None:
    """One prompt learns both; the LM head stays frozen."""
    tables = [tiny.table(tmp_path, "classes", 40, 1), tiny.table(tmp_path, kind, 25, 2)]

    def fit(folder: str, **options: Any) -> Fit:
        model = tiny.prompted("multitask", family, second="language_model")
        return Fit(tables, tmp_path / folder, ranks, model=model, balance_losses=True, **options)

    uninterrupted = fit("uninterrupted")
    run = uninterrupted()
    with pytest.raises(KeyboardInterrupt):
        fit("a", callback=tiny.TrainingCallback(5))()
    resumed = fit("a")
    assert curves(resumed()) == curves(run)
    assert resumed.callback.steps[0] == 4
    assert resumed.values() == uninterrupted.values()
    frozen = tiny.prompted("multitask", family, second="language_model").backbone.state_dict()
    for name, value in resumed.model.backbone.state_dict().items():
        assert torch.equal(value, frozen[name]), name
    # Random encoder-decoders learn too little in 8 steps; see test_encoder_decoder.py.
    for name in ("loss_ner", "loss_qa") if kind == "language_model" else ():
        losses = [row[name] for row in run.train if name in row]
        assert losses[-1] < losses[0], name


@pytest.mark.parametrize("at", [1, 4, 8])
def test_a_stop_request_loses_no_step(
    at: int,
    uninterrupted: tuple[Fit, TrainingRun],
    tables: list[FeatureTable],
    ranks: Ranks,
    tmp_path: Path,
) -> None:
    answers = iter([False] * (at - 1) + [True])
    with pytest.raises(Stopped, match=f"stopped after step {at} of {STEPS}, with a checkpoint"):
        Fit(tables, tmp_path, ranks, stopping=lambda: next(answers))()
    fit = Fit(tables, tmp_path, ranks)
    assert curves(fit()) == curves(uninterrupted[1])
    assert fit.callback.steps == list(range(at + 1, STEPS + 1))
    assert fit.values() == uninterrupted[0].values()


def test_a_stop_request_after_the_last_step_is_ignored(
    uninterrupted: tuple[Fit, TrainingRun], tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    answers = iter([False] * (STEPS - 1) + [True])
    assert curves(Fit(tables, tmp_path, ranks, stopping=lambda: next(answers))()) == curves(
        uninterrupted[1]
    )


def test_an_interruption_at_every_step_changes_no_result(
    uninterrupted: tuple[Fit, TrainingRun], tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    for at in range(2, STEPS + 1):
        with pytest.raises(KeyboardInterrupt):
            Fit(tables, tmp_path, ranks, callback=tiny.TrainingCallback(at), seconds=0.0)()
    fit = Fit(tables, tmp_path, ranks)
    assert curves(fit()) == curves(uninterrupted[1])
    assert fit.callback.steps == [], "every step was in a checkpoint before the callback was called"
    assert fit.values() == uninterrupted[0].values()


def test_a_finished_run_is_not_repeated(
    uninterrupted: tuple[Fit, TrainingRun], tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    """The process may be killed before it has saved the result of a finished run."""
    Fit(tables, tmp_path, ranks)()
    (checkpoint,) = tmp_path.iterdir()
    parts = {name.split(".")[0] for name in load_file(checkpoint / "state.safetensors")}
    assert parts == {"best"}, "the moments of AdamW take three times the space, for nothing"
    fit = Fit(tables, tmp_path, ranks, validate=Scripted())
    assert curves(fit()) == curves(uninterrupted[1])
    assert fit.callback.steps == []
    assert fit.values() == uninterrupted[0].values()


def test_a_stop_request_does_not_wait_for_a_validation(
    uninterrupted: tuple[Fit, TrainingRun], tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    answers = iter([False, False, True])
    with pytest.raises(Stopped, match="stopped after step 3"):
        Fit(tables, tmp_path, ranks, validate=Scripted(), stopping=lambda: next(answers))()
    fit = Fit(tables, tmp_path, ranks)
    assert curves(fit()) == curves(uninterrupted[1])
    assert fit.callback.steps == list(range(4, STEPS + 1))
    assert fit.values() == uninterrupted[0].values()


def test_a_broken_checkpoint_costs_only_steps(
    uninterrupted: tuple[Fit, TrainingRun], tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        Fit(tables, tmp_path, ranks, callback=tiny.TrainingCallback(8))()
    (tmp_path / "step-000000006" / "state.safetensors").write_bytes(b"torn")
    fit = Fit(tables, tmp_path, ranks)
    fit()
    assert "step-000000006: its hash differs; ignored" in fit.callback.lines[0]
    assert fit.callback.lines[1] == "resuming at step 3 of 9"
    assert fit.values() == uninterrupted[0].values()


@pytest.mark.parametrize("arm", ["soft_prompt", "fine_tune", "head_only"])
def test_other_arms_are_resumed(
    arm: ArmName, tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    whole = Fit(tables, tmp_path / "whole", ranks, arm)
    expected = whole()
    with pytest.raises(KeyboardInterrupt):
        Fit(tables, tmp_path / "cut", ranks, arm, callback=tiny.TrainingCallback(7))()
    fit = Fit(tables, tmp_path / "cut", ranks, arm)
    assert curves(fit()) == curves(expected)
    assert fit.values() == whole.values()


def prompt_with_projection() -> DeepPrompt:
    embedding = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    return DeepPrompt(
        torch.zeros(3, 2, 4, 3, 4), projection=Projection(embedding, 6, 96, seed=1), dropout=0.3
    )


def prompt_with_factors() -> DeepPrompt:
    shared = torch.randn(2, 2, 4, 3, 4, generator=torch.Generator().manual_seed(0))
    return DeepPrompt(shared, first_layer=1, factors=TaskFactors(2, 3, 2, 64, seed=1), dropout=0.3)


def prompt_with_scale_shift() -> DeepPrompt:
    scaled = tiny.backbone().scaled_modules()
    key_values = torch.randn(2, 2, 4, 3, 4, generator=torch.Generator().manual_seed(0))
    return DeepPrompt(
        key_values, first_layer=1, dropout=0.3, scale_shift=new_scale_shift(scaled, range(1, 3))
    )


@pytest.mark.parametrize(
    "prompt", [prompt_with_projection, prompt_with_factors, prompt_with_scale_shift]
)
def test_prompts_of_other_kinds_are_resumed(
    prompt: Callable[[], DeepPrompt], tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    """Dropout is a function of the step, and the weights of the projection are restored."""
    whole, cut, resumed = (
        Fit(tables, tmp_path / name, ranks, prompt=prompt) for name in ("whole", "cut", "cut")
    )
    run = whole()
    cut.callback.at = 5
    with pytest.raises(KeyboardInterrupt):
        cut()
    assert curves(resumed()) == curves(run)
    assert resumed.values() == whole.values()
    start = prompt().state_dict()
    assert all(
        not torch.equal(value, start[name])
        for name, value in whole.model.prompt.state_dict().items()
    )


def prompt_of_upper_layers() -> DeepPrompt:
    key_values = torch.randn(2, 2, 4, 3, 4, generator=torch.Generator().manual_seed(0))
    return DeepPrompt(key_values, first_layer=1, dropout=0.3)


def test_the_hidden_state_cache_changes_no_result_even_if_interrupted(
    tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    plain, whole, *cut = (
        Fit(
            tables,
            tmp_path / name,
            ranks,
            prompt=prompt_of_upper_layers,
            seconds=0.0,
            hidden_state_cache_mb=size,
        )
        for name, size in (("plain", 0), ("whole", 1), *[("cut", 1)] * 4)
    )
    expected, run = plain(), whole()
    for row, other in zip(curves(run)["train"], curves(expected)["train"], strict=True):
        assert row == pytest.approx(other, rel=1e-3)
    for name, value in plain.model.trainable_state().items():
        torch.testing.assert_close(whole.model.trainable_state()[name], value, atol=2e-4, rtol=1e-3)
    for fit, at in zip(cut, (2, 5, 8), strict=False):
        fit.callback.at = at
        with pytest.raises(KeyboardInterrupt):
            fit()
    assert curves(cut[-1]()) == curves(run)
    assert cut[-1].values() == whole.values()
    assert "caching the output of the lower layers on disk: 0.0 MB" in whole.callback.lines
    assert {path.name.split("-")[0] for path in (tmp_path / "cut").iterdir()} == {"step"}
    over = Fit(
        tables, tmp_path / "whole", ranks, prompt=prompt_of_upper_layers, hidden_state_cache_mb=1
    )
    over()
    assert over.callback.lines == ["resuming at step 9 of 9"], "a finished run caches nothing"


def test_a_run_reports_rows_tokens_losses_and_resources(
    uninterrupted: tuple[Fit, TrainingRun],
) -> None:
    fit, run = uninterrupted
    steps = [fit.batches.step(step) for step in range(STEPS)]
    counts = fit.batches.count([micro for step in steps for micro in step])
    assert run.consumed == dict(zip(("ner", "qa"), counts, strict=True))
    assert [row["step"] for row in run.train] == list(range(1, STEPS + 1))
    for row, step in zip(run.train, steps, strict=True):
        tasks = [("ner", "qa")[micro.task] for micro in step]
        for kind in ("loss", "share"):
            assert {name for name in row if name.startswith(f"{kind}_")} == {
                f"{kind}_{name}" for name in tasks
            }
        assert row["loss"] == pytest.approx(sum(row[f"loss_{name}"] for name in tasks) / len(tasks))
        for number, name in enumerate(("ner", "qa")):
            rows = sum(len(micro.rows) for micro in step if micro.task == number)
            assert row.get(f"share_{name}", 0.0) == rows / sum(len(micro.rows) for micro in step)
    seconds = [row["seconds"] for row in run.resource_usage]
    assert len(seconds) == STEPS
    assert seconds == sorted(seconds)
    assert 0 < seconds[0] <= seconds[-1] <= run.seconds
    assert all(50 < row["peak_memory_mb"] < 100_000 for row in run.resource_usage)
    assert [row["step"] for row in run.validation] == [3, 6, 9]
    assert [row["score"] for row in run.validation] == [
        (row["score_ner"] + row["score_qa"]) / 2 for row in run.validation
    ]


# Compared with a training loop by hand


def by_hand(
    tables: list[FeatureTable], chosen: TrainParams, clip: float
) -> tuple[PromptedModel, list[float]]:
    """Train in plain torch: mean loss of a step's micro-batches, gradient norm up to `clip`, AdamW.

    Returns the model and the gradient norms before clipping.
    """
    model = tiny.prompted("multitask")
    batches = batches_of(tables, chosen)
    prompt, heads = [model.prompt.key_values], [model.heads.weight, model.heads.bias]
    adam = torch.optim.AdamW(
        [{"params": prompt}, {"params": heads}], weight_decay=chosen.weight_decay
    )
    steps = math.ceil(
        chosen.epochs
        * sum(corpus.per_epoch for corpus in batches.task_batches)
        / chosen.micro_batches_per_step
    )
    warm, norms = max(1, round(chosen.warmup_ratio * steps)), []
    for step in range(steps):
        factor = (step + 1) / warm if step < warm else (steps - step) / (steps - warm)
        adam.param_groups[0]["lr"], adam.param_groups[1]["lr"] = (
            chosen.prompt_lr * factor,
            chosen.head_lr * factor,
        )
        loss = torch.zeros(())
        for micro in batches.step(step):
            batch = collate(tables[micro.task], micro.rows, micro.task, 0)
            task_loss = model.heads.loss(model(batch), batch) * micro.weight
            loss = (
                loss
                + (torch.log(task_loss + BALANCE_EPSILON) if chosen.balance_losses else task_loss)
                / chosen.micro_batches_per_step
            )
        adam.zero_grad()
        loss.backward()
        norm = torch.cat([parameter.grad.flatten() for parameter in (*prompt, *heads)]).norm()
        norms.append(norm.item())
        for parameter in (*prompt, *heads):
            parameter.grad.mul_(min(1.0, clip / (norm.item() + 1e-6)))
        adam.step()
    return model, norms


@pytest.mark.parametrize(
    ("micro_batches_per_step", "balance_losses"), [(1, False), (3, False), (3, True)]
)
def test_training_equals_plain_adamw(
    micro_batches_per_step: int,
    balance_losses: bool,
    tables: list[FeatureTable],
    ranks: Ranks,
    tmp_path: Path,
) -> None:
    changes = {
        "micro_batches_per_step": micro_batches_per_step,
        "balance_losses": balance_losses,
        "num_validations": 1,
        "warmup_ratio": 0.3,
        "weight_decay": 0.1,
        "max_grad_norm": 0.15,
        "epochs": 1.5,
    }
    fit = Fit(tables, tmp_path, ranks, **changes)
    run = fit()
    expected, norms = by_hand(tables, params(**changes), clip=0.15)
    assert [row["gradient_norm"] for row in run.train] == pytest.approx(norms, rel=1e-4)
    assert min(norms) > 0.15, "every gradient is clipped"
    for name, value in expected.trainable_state().items():
        torch.testing.assert_close(fit.model.trainable_state()[name], value, atol=1e-6, rtol=1e-5)
    unclipped, _ = by_hand(tables, params(**changes), clip=1e9)
    assert not torch.allclose(unclipped.heads.weight, expected.heads.weight, atol=1e-4), (
        "clipping has an effect"
    )


def test_each_part_has_its_learning_rate(
    tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    """The first step of AdamW moves a value by the learning rate, whatever its gradient."""
    fit = Fit(
        tables, tmp_path, ranks, epochs=0.01, num_validations=1, prompt_lr=0.05, head_lr=0.002
    )
    start = tiny.prompted("multitask").trainable_state()
    assert fit().steps == 1
    moved = {
        name: float((value - start[name]).detach().abs().max())
        for name, value in fit.model.trainable_state().items()
    }
    assert moved == pytest.approx(
        {"prompt.key_values": 0.05, "heads.weight": 0.002, "heads.bias": 0.002}, rel=1e-3
    )


def test_the_learning_rate_rises_and_falls(
    tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    run = Fit(tables, tmp_path, ranks, warmup_ratio=0.34, prompt_lr=0.6, head_lr=0.06)()
    factors = [1 / 3, 2 / 3, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]
    assert [row["prompt_lr"] for row in run.train] == pytest.approx(
        [0.6 * factor for factor in factors]
    )
    assert [row["head_lr"] for row in run.train] == pytest.approx(
        [0.06 * factor for factor in factors]
    )


def test_the_lr_multiplier_of_short_and_long_runs() -> None:
    assert lr_multiplier(0, 1, 0.06) == 1.0
    assert [lr_multiplier(step, 4, 0.0) for step in range(4)] == [1.0, 1.0, 2 / 3, 1 / 3]
    long = [lr_multiplier(step, 1000, 0.1) for step in range(1000)]
    assert (max(long), long.index(1.0), long[49], long[550]) == (1.0, 99, 0.5, 0.5)
    assert 0 < long[-1] < 0.002


def test_the_optimizer_has_one_group_per_part() -> None:
    model = tiny.prompted("fine_tune")
    adam = optimizer(model.trainable_state().items(), {"backbone": 0.1, "head": 0.2}, 0.3)
    assert {group["part"]: group["lr"] for group in adam.param_groups} == {
        "backbone": 0.1,
        "head": 0.2,
    }
    assert {group["weight_decay"] for group in adam.param_groups} == {0.3}
    assert {id(p) for p in adam.param_groups[0]["params"]} == {
        id(p) for p in model.backbone.parameters()
    }
    assert [id(p) for p in adam.param_groups[1]["params"]] == [
        id(model.heads.weight),
        id(model.heads.bias),
    ]


# Best values, patience and divergence


class Scripted:
    """Returns the scores in order and records the values of the model at each validation."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.seen = list(scores), []

    def __call__(self, model: PromptedModel) -> Scores:
        self.seen.append(
            {
                name: value.detach().numpy().tobytes()
                for name, value in model.trainable_state().items()
            }
        )
        return {
            "ner": self.scores[len(self.seen) - 1] + 1,
            "qa": self.scores[len(self.seen) - 1] - 1,
        }


@pytest.mark.parametrize(
    ("scores", "best"), [((5, 9, 7), 1), ((9, 9, 2), 0), ((0, 1, 2), 2), ((0, 0, 0), 0)]
)
def test_the_best_values_by_validation_are_kept(
    scores: tuple[float, ...], best: int, tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    validate = Scripted(*scores)
    fit = Fit(tables, tmp_path, ranks, validate=validate)
    run = fit()
    assert (run.best_score, run.best_step) == (scores[best], 3 * (best + 1))
    assert fit.values() == validate.seen[best]
    assert len(set(map(str, validate.seen))) == 3


def test_the_best_values_survive_an_interruption(
    tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    first = Scripted(9, 5)
    with pytest.raises(KeyboardInterrupt):
        Fit(tables, tmp_path, ranks, validate=first, callback=tiny.TrainingCallback(8))()
    fit = Fit(tables, tmp_path, ranks, validate=Scripted(7))
    run = fit()
    assert (run.best_score, run.best_step, len(run.validation)) == (9, 3, 3)
    assert fit.values() == first.seen[0]


def test_patience_ends_a_run(tables: list[FeatureTable], ranks: Ranks, tmp_path: Path) -> None:
    validate = Scripted(5, 9, 8, 8.5, 7, 6, 5, 4, 3)
    fit = Fit(tables, tmp_path, ranks, validate=validate, num_validations=9, patience=2)
    run = fit()
    assert fit.callback.steps == [1, 2, 3, 4]
    assert "stopping at step 4: 2 validations without a new best" in fit.callback.lines
    assert (run.best_step, len(run.train), len(run.validation)) == (2, 4, 4)
    assert fit.values() == validate.seen[1]
    again = Fit(tables, tmp_path, ranks, validate=Scripted(), num_validations=9, patience=2)
    assert curves(again()) == curves(run)
    assert again.callback.steps == [], "a finished run is not continued"
    assert again.values() == fit.values()


class Pruning(tiny.TrainingCallback):
    """Asks to end the run at each validation from step `last` on."""

    def __init__(self, last: int) -> None:
        super().__init__()
        self.last = last
        self.asked: list[int] = []

    def should_prune(self, run: TrainingRun) -> bool:
        self.asked.append(int(run.validation[-1]["step"]))
        return self.asked[-1] >= self.last


def test_a_callback_ends_a_run(tables: list[FeatureTable], ranks: Ranks, tmp_path: Path) -> None:
    validate = Scripted(9, 5)
    pruning, shown = Pruning(6), tiny.TrainingCallback()
    fit = Fit(tables, tmp_path, ranks, validate=validate, callback=CallbackList([pruning, shown]))
    run = fit()
    assert (run.pruned, pruning.asked) == (True, [3, 6])
    assert (run.best_step, len(run.train), len(run.validation)) == (3, 6, 2)
    assert shown.steps == [1, 2, 3, 4, 5, 6]
    assert shown.lines[-1] == "pruned at step 6 of 9"
    assert fit.values() == validate.seen[0], "the model has the best values"
    again = Fit(tables, tmp_path, ranks, validate=Scripted())
    assert curves(again()) == curves(run)
    assert again.callback.steps == [], "a pruned run is not continued"
    assert again.values() == fit.values()


def test_a_run_is_not_pruned_at_its_last_step(
    tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    pruning = Pruning(STEPS)
    run = Fit(tables, tmp_path, ranks, callback=pruning)()
    assert (run.pruned, pruning.asked, len(run.train)) == (False, [3, 6], STEPS)


def test_a_run_without_patience_trains_all_steps(
    tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    fit = Fit(
        tables, tmp_path, ranks, validate=Scripted(*range(9, 0, -1)), num_validations=9, patience=0
    )
    assert len(fit().train) == STEPS


def test_a_loss_of_nan_is_reported_with_its_rows(
    tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    class Spoil(tiny.TrainingCallback):
        def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
            super().step(run, rows, tokens)
            if self.steps[-1] == 4:
                torch.nn.init.constant_(fit.model.heads.bias, math.nan)

    fit = Fit(tables, tmp_path, ranks, callback=Spoil())
    with pytest.raises(
        Diverged, match=r"^step 5: the loss is nan and its gradient's norm "
    ) as caught:
        fit()
    assert caught.value.features == [
        (("ner", "qa")[micro.task], micro.rows.tolist()) for micro in fit.batches.step(4)
    ]
    assert_checkpoint_is_sound(tmp_path, 3)


def assert_checkpoint_is_sound(folder: Path, step: int) -> None:
    state, broken = load_checkpoint(folder)
    assert (state.step, broken) == (step, [])
    assert all(torch.isfinite(value).all() for value in state.tensors.values())


@pytest.mark.parametrize(
    ("loss", "found"),
    [
        (lambda loss: loss * math.nan, "the loss is nan"),
        (lambda loss: loss + 1e6, r"the loss is \d+(\.\d+)?(e\+05)? and"),
    ],
)
def test_the_micro_batch_with_the_diverged_loss_is_named(
    loss: Callable[[torch.Tensor], torch.Tensor],
    found: str,
    tables: list[FeatureTable],
    ranks: Ranks,
    tmp_path: Path,
) -> None:
    fit = Fit(tables, tmp_path, ranks)
    spoiled = fit.batches.step(6)[1]

    def spoil(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        value = Heads.loss(fit.model.heads, logits, batch)
        return (
            loss(value)
            if (batch.task, batch.rows.tolist()) == (spoiled.task, spoiled.rows.tolist())
            else value
        )

    fit.model.heads.loss = spoil
    with pytest.raises(Diverged, match=f"^step 7: {found}") as caught:
        fit()
    assert caught.value.features == [(("ner", "qa")[spoiled.task], spoiled.rows.tolist())]
    assert_checkpoint_is_sound(tmp_path, 6)


def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(
    tables: list[FeatureTable], ranks: Ranks, tmp_path: Path
) -> None:
    """The loss of the step is still finite, and every step writes a checkpoint."""

    class Spoil(tiny.TrainingCallback):
        def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
            super().step(run, rows, tokens)
            if self.steps[-1] == 4:
                fit.model.heads.bias.register_hook(lambda gradient: gradient * math.inf)

    fit = Fit(tables, tmp_path, ranks, callback=Spoil(), seconds=0.0)
    with pytest.raises(
        Diverged, match=r"^step 5: the loss is \d\.\d+ and its gradient's norm (nan|inf)"
    ) as caught:
        fit()
    assert caught.value.features == [
        (("ner", "qa")[micro.task], micro.rows.tolist()) for micro in fit.batches.step(4)
    ]
    assert_checkpoint_is_sound(tmp_path, 4)


# Several ranks


def test_micro_batches_that_the_ranks_cannot_share_evenly_are_refused(
    ranks: Ranks, tables: list[FeatureTable], tmp_path: Path
) -> None:
    fit = Fit(tables, tmp_path, Ranks(0, 2, 0), micro_batches_per_step=3)
    with pytest.raises(
        UserError,
        match="2 ranks cannot share the 3 micro-batches of a step evenly; start 1 or 3 ranks, or "
        "change",
    ):
        fit()
    with pytest.raises(UserError, match="4 ranks cannot share the 6 micro-batches"):
        micro_batches_per_rank(6, Ranks(0, 4, 0))
