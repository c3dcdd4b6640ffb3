"""The arms: each way to train a model for a task is one frozen record. Nothing outside this file compares an arm's name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ArmName = Literal["multitask", "deep_prompt", "soft_prompt", "fine_tune", "head_only", "lora"]
Part = Literal["prompt", "head", "backbone", "lora"]

_NEW_PROMPT = ("num_virtual_tokens", "init", "prompt_layers", "shift_positions")
_DEEP_PROMPT = ("projection_size", "prompt_dropout", "hidden_state_cache_mb")


@dataclass(frozen=True)
class Arm:
    """One arm: how it trains, how its artifacts are used, and how the report shows it.

    `parts` are trained, each at its learning rate PART_lr; the first part tells the arm from others. `prompt` is the kind of
    prompt in its model (None: no prompt), which starts from the artifact in the task's `init_from` if `from_artifact`, and
    from training text otherwise. `params` are the keys of TrainParams that this arm takes and not all arms take. `baseline`:
    `compare.arms` may name it; the only other arm runs on every task.

    `served_alone` says why its artifacts cannot share a predictor with others (empty: they can). `model_card` names the
    trained thing there.

    In the report, `title` stands below its name, `glossary` explains it, `color` (Okabe and Ito's palette) marks it
    everywhere. The summary states how far `multitask` is from the references: `reference` is the place among them (0: none).
    """

    name: ArmName
    parts: tuple[Part, ...]
    title: str
    glossary: str
    color: str
    model_card: str
    prompt: Literal["deep", "soft"] | None = None
    from_artifact: bool = False
    params: tuple[str, ...] = ()
    baseline: bool = True
    reference: int = 0
    served_alone: str = ""

    @property
    def trains_backbone(self) -> bool:
        """Whether the backbone's weights change, so that an artifact holds them."""
        return "backbone" in self.parts


MULTITASK = Arm(
    "multitask",
    ("prompt", "head"),
    title="prompt tuned from the shared one",
    glossary="One deep prompt is trained on all corpora of a mixture, then a copy of it is tuned for this task (MPT-2). "
    "The backbone stays frozen. Its steps and tokens do not include the shared prompt's.",
    color="#0072B2",
    model_card="a deep prompt",
    prompt="deep",
    from_artifact=True,
    params=_DEEP_PROMPT,
    baseline=False,
)
DEEP_PROMPT = Arm(
    "deep_prompt",
    ("prompt", "head"),
    title="own prompt from scratch",
    glossary="The same deep prompt, trained for this task alone, from scratch. Any gain of multitask over it comes from "
    "the shared pretraining and its extra compute.",
    color="#E69F00",
    model_card="a deep prompt",
    prompt="deep",
    params=(*_NEW_PROMPT, *_DEEP_PROMPT),
    reference=2,
)
SOFT_PROMPT = Arm(
    "soft_prompt",
    ("prompt", "head"),
    title="input layer only",
    glossary="A prompt at the input layer only; the backbone stays frozen.",
    color="#009E73",
    model_card="a soft prompt",
    prompt="soft",
    params=("num_virtual_tokens",),
    served_alone="its prompt is part of the input, and rows of other tasks have no such prompt",
)
FINE_TUNE = Arm(
    "fine_tune",
    ("backbone", "head"),
    title="whole backbone",
    glossary="The whole backbone is trained: the usual reference, and the most expensive to store.",
    color="#D55E00",
    model_card="a fine-tuned backbone",
    reference=1,
    served_alone="it has a backbone of its own, so it shares no pass with others",
)
HEAD_ONLY = Arm(
    "head_only",
    ("head",),
    title="linear head only",
    glossary="A linear head on the frozen backbone: what it knows without any prompt.",
    color="#6B6B6B",
    model_card="a head",
)
LORA = Arm(
    "lora",
    ("lora", "head"),
    title="low-rank factors",
    glossary="Low-rank factors are added to the query and value projections of the frozen backbone's attention (LoRA, Hu "
    "et al. 2022).",
    color="#56B4E9",
    model_card="low-rank factors (LoRA)",
    params=("lora_rank", "lora_alpha"),
    served_alone="its factors change the backbone's layers, so it shares no pass with others",
)

ARMS: Mapping[str, Arm] = {
    arm.name: arm for arm in (MULTITASK, DEEP_PROMPT, SOFT_PROMPT, FINE_TUNE, HEAD_ONLY, LORA)
}
"""Every arm by its name, in the order in which dashes and markers are given out in plots."""

PRETRAIN_PARAMS = (*_NEW_PROMPT, *_DEEP_PROMPT, "factor_rank", "balance_losses")
"""As `Arm.params`, of the training of a mixture's shared prompt."""
