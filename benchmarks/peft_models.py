"""peft's prefix tuning and LoRA in the place of our prompts: the same heads, loss, batches and training loop around them."""

from typing import Any

import peft
from torch import Tensor, nn
from transformers import AutoModel

from pipeline.model.heads import Heads
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams
from pipeline.pretrained.location import locate

CONFIGS: dict[str, Any] = {
    # As peft ships it but for the number of virtual tokens, which it has no default for.
    "peft_prefix": lambda tokens: peft.PrefixTuningConfig(
        task_type="FEATURE_EXTRACTION", num_virtual_tokens=tokens
    ),
    # As peft ships it: rank 8 on the queries and values of BERT.
    "peft_lora": lambda _: peft.LoraConfig(task_type="FEATURE_EXTRACTION"),
}


class Adapted(nn.Module):
    """A backbone with peft's own parameters in it, which are all that is trained of it."""

    def __init__(self, params: BackboneParams, method: str, num_virtual_tokens: int) -> None:
        super().__init__()
        model = AutoModel.from_pretrained(
            locate(params), local_files_only=True, add_pooling_layer=False
        )
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.hidden_size = int(model.config.hidden_size)
        self.model = peft.get_peft_model(model, CONFIGS[method](num_virtual_tokens))

    def train(self, mode: bool = True) -> "Adapted":
        """Dropout stays off, as it is in our arms."""
        return super().train(False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_types: Tensor, *_: None, **__: None
    ) -> Tensor:
        """Hidden states [B, T, C]."""
        found = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_types
        )
        hidden: Tensor = found.last_hidden_state
        return hidden


class PeftModel(PromptedModel):
    """What `PromptedModel` is, around peft's."""

    def __init__(self, backbone: Adapted, heads: Heads) -> None:
        trained = {
            name for name, parameter in backbone.named_parameters() if parameter.requires_grad
        }
        super().__init__(backbone, None, heads, train_backbone=False)  # type: ignore[arg-type]
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in trained)
