"""Models with prefix tuning of peft, for this project's heads, loss and training loop."""

import peft
from torch import Tensor, nn
from transformers import AutoModel

from pipeline.model.heads import Heads
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams, Precision
from pipeline.pretrained.location import locate


class Adapted(nn.Module):
    """A backbone with the parameters of peft; only these are trained."""

    precision: Precision = "float32"

    def __init__(self, params: BackboneParams, num_virtual_tokens: int) -> None:
        super().__init__()
        model = AutoModel.from_pretrained(
            locate(params), local_files_only=True, add_pooling_layer=False
        )
        self.num_parameters = sum(parameter.numel() for parameter in model.parameters())
        self.hidden_size = int(model.config.hidden_size)
        config = peft.PrefixTuningConfig(
            task_type="FEATURE_EXTRACTION", num_virtual_tokens=num_virtual_tokens
        )
        self.model = peft.get_peft_model(model, config)

    def train(self, mode: bool = True) -> "Adapted":
        """Keep dropout off, as in the arms of this project."""
        return super().train(False)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_types: Tensor, *_: None, **__: None
    ) -> Tensor:
        """Return the hidden states [B, T, C]."""
        output = self.model(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_types
        )
        hidden: Tensor = output.last_hidden_state
        return hidden


class PeftModel(PromptedModel):
    """A `PromptedModel` with a backbone adapted by peft."""

    def __init__(self, backbone: Adapted, heads: Heads) -> None:
        trained = {
            name for name, parameter in backbone.named_parameters() if parameter.requires_grad
        }
        super().__init__(backbone, None, heads, train_backbone=False)  # type: ignore[arg-type]
        for name, parameter in backbone.named_parameters():
            parameter.requires_grad_(name in trained)
