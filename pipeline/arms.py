"""The arms. An arm is one way to train a model for a task, described by one frozen record.

No other module compares names of arms.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ArmName = Literal[
    "multitask",
    "deep_prompt",
    "soft_prompt",
    "fine_tune",
    "head_only",
    "lora",
    "random_backbone",
    "untrained",
]
Part = Literal["prompt", "head", "backbone", "lora"]

_TRAINING = (
    "epochs",
    "tokens_per_micro_batch",
    "micro_batches_per_step",
    "warmup_ratio",
    "weight_decay",
    "max_grad_norm",
    "num_validations",
    "patience",
)
_NEW_PROMPT = ("num_virtual_tokens", "init", "prompt_layers", "shift_positions", "scale_shift")
_DEEP_PROMPT = ("projection_size", "prompt_dropout", "hidden_state_cache_mb")
LORA_PARAMS = ("lora_rank", "lora_alpha")


@dataclass(frozen=True)
class Arm:
    """One arm: how it trains, how its artifacts are used, and how the report shows it.

    `parts` are the trained parts of the model. Each has the learning rate PART_lr, and the first
    part characterizes the arm. An arm without parts trains nothing: the backbone's LM head predicts
    by itself, so the arm is only for tasks without a head of their own (`LM_HEADS`). The parts in
    `optional_parts` are trained too if their learning rate is set. `prompt` is the kind of prompt
    in the model (None: no prompt). With `from_artifact`, the prompt is initialized from the
    artifact in the task's `init_from`, otherwise from training text. With `random_backbone`, the
    backbone has random weights in place of its pretrained ones. `own_params` lists the keys of
    TrainParams that this arm uses and some other trained arms do not. `baseline` tells whether
    `compare.arms` may name the arm; the only arm that is not a baseline runs on every task.

    `served_alone` is the reason why its artifacts cannot share a predictor with other artifacts
    (empty: they can). `model_card` is the name of the trained part in the model card.

    In the report, `title` is shown below the name, `glossary` explains the arm, and `color` (from
    Okabe and Ito's palette) marks the arm in every plot. The summary compares `multitask` with the
    reference arms, in the order of `reference` (0: not a reference arm).
    """

    name: ArmName
    parts: tuple[Part, ...]
    title: str
    glossary: str
    color: str
    model_card: str
    prompt: Literal["deep", "soft"] | None = None
    from_artifact: bool = False
    random_backbone: bool = False
    own_params: tuple[str, ...] = ()
    baseline: bool = True
    reference: int = 0
    served_alone: str = ""
    optional_parts: tuple[Part, ...] = ()

    @property
    def params(self) -> tuple[str, ...]:
        """The keys of TrainParams that this arm uses and some other arms do not."""
        return (*_TRAINING, *self.own_params) if self.parts else ()

    @property
    def trains_backbone(self) -> bool:
        """Whether training changes the backbone's weights. If so, an artifact contains them."""
        return "backbone" in self.parts


MULTITASK = Arm(
    "multitask",
    ("prompt", "head"),
    title="initialized from the shared prompt",
    glossary="One deep prompt is trained on all corpora of a mixture, then a copy of it is tuned "
    "for this task (MPT-2), with low-rank factors (LoRA) beside it if lora_lr is set. The backbone "
    "stays frozen. The steps and tokens of this arm do not include the training of the shared "
    "prompt.",
    color="#0072B2",
    model_card="a deep prompt",
    prompt="deep",
    from_artifact=True,
    own_params=(*_DEEP_PROMPT, *LORA_PARAMS),
    baseline=False,
    optional_parts=("lora",),
)
DEEP_PROMPT = Arm(
    "deep_prompt",
    ("prompt", "head"),
    title="prompt trained from scratch",
    glossary="A deep prompt of the same shape is trained from scratch on this task alone. Any gain "
    "of multitask over it comes from the shared pretraining and its extra compute.",
    color="#E69F00",
    model_card="a deep prompt",
    prompt="deep",
    own_params=(*_NEW_PROMPT, *_DEEP_PROMPT),
    reference=2,
)
SOFT_PROMPT = Arm(
    "soft_prompt",
    ("prompt", "head"),
    title="prompt at the input layer only",
    glossary="A prompt is trained at the input layer only. The backbone stays frozen.",
    color="#009E73",
    model_card="a soft prompt",
    prompt="soft",
    own_params=("num_virtual_tokens",),
    served_alone="its prompt is part of the input, and rows of other tasks do not have this prompt",
)
FINE_TUNE = Arm(
    "fine_tune",
    ("backbone", "head"),
    title="whole backbone trained",
    glossary="The whole backbone is trained. This arm is the usual reference. Its artifacts "
    "are the largest.",
    color="#D55E00",
    model_card="a fine-tuned backbone",
    reference=1,
    served_alone="its backbone differs from the others, so they cannot share a forward pass",
)
HEAD_ONLY = Arm(
    "head_only",
    ("head",),
    title="linear head only",
    glossary="A linear head is trained on the frozen backbone. It measures the backbone without "
    "any prompt.",
    color="#6B6B6B",
    model_card="a head",
)
LORA = Arm(
    "lora",
    ("lora", "head"),
    title="low-rank factors",
    glossary="Low-rank factors are added to the query and value projections of the frozen "
    "backbone's attention, and trained (LoRA, Hu et al. 2022).",
    color="#56B4E9",
    model_card="low-rank factors (LoRA)",
    own_params=LORA_PARAMS,
    served_alone="its factors change the backbone's layers, so others cannot share a forward pass",
)
RANDOM_BACKBONE = Arm(
    "random_backbone",
    ("prompt", "head"),
    title="prompt on random weights",
    glossary="A control: the prompt of deep_prompt, on a backbone of the same architecture with "
    "random weights. A score that this arm reaches too says nothing about the knowledge in the "
    "pretrained weights (Zhang & Bowman 2018; Hewitt & Liang 2019).",
    color="#000000",
    model_card="a deep prompt on random weights",
    prompt="deep",
    random_backbone=True,
    own_params=(*_NEW_PROMPT, *_DEEP_PROMPT),
    served_alone="it is a control on random weights, and no other artifact has such a backbone",
)
UNTRAINED = Arm(
    "untrained",
    (),
    title="pretrained model alone",
    glossary="Nothing is trained: the language modeling head of the pretrained backbone predicts "
    "by itself, without a prompt. It measures what the pretrained weights can do without training.",
    color="#F0E442",
    model_card="nothing",
)

ARMS: Mapping[str, Arm] = {
    arm.name: arm
    for arm in (
        MULTITASK,
        DEEP_PROMPT,
        SOFT_PROMPT,
        FINE_TUNE,
        HEAD_ONLY,
        LORA,
        RANDOM_BACKBONE,
        UNTRAINED,
    )
}
"""Every arm by its name. Plots assign line styles and markers in this order."""

PRETRAIN_PARAMS = (*_TRAINING, *_NEW_PROMPT, *_DEEP_PROMPT, "factor_rank", "balance_losses")
"""The keys of TrainParams for the shared prompt of a mixture, as `Arm.params` for an arm."""
