"""Tiny random models and features for fast tests of models and training."""

from typing import Any

import torch
import transformers
from torch import Tensor

from pipeline.arms import ARMS, ArmName
from pipeline.model.attention import ATTENTION
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.lora import add_lora
from pipeline.model.pretrained_model import split_lm_head
from pipeline.model.prompt import DeepPrompt, SoftPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.model.random_model import random_model
from pipeline.pretrained.families import ENCODER_DECODERS, family_of
from pipeline.tasks.base.task import HeadKind
from pipeline.training import callbacks
from pipeline.training.callbacks import TrainingRun
from tests.support.tiny_features import (  # noqa: F401 (for tiny.NAME)
    END,
    VOCABULARY,
    features,
    table,
)

torch.set_num_threads(1)  # faster than several threads for such small matrices

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "initializer_range": 0.3,
}


_T5: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "d_model": 16,
    "d_kv": 4,
    "d_ff": 24,
    "num_layers": SIZES["num_hidden_layers"],
    "num_decoder_layers": 2,
    "decoder_start_token_id": 0,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
    "pad_token_id": 0,
}


def config(family: str) -> Any:
    """The configuration of a tiny model; attention windows are shorter than the texts."""
    roberta = {**SIZES, "pad_token_id": 1, "type_vocab_size": 1}
    few_heads = {**SIZES, "num_key_value_heads": 2}
    special_tokens = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    relative = {"relative_attention": True, "type_vocab_size": 0}
    factories = {
        "albert": lambda: transformers.AlbertConfig(**SIZES, embedding_size=8),
        "bart": lambda: transformers.BartConfig(
            vocab_size=VOCABULARY,
            d_model=16,
            encoder_layers=SIZES["num_hidden_layers"],
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=24,
            decoder_ffn_dim=24,
            max_position_embeddings=64,
            init_std=0.3,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            decoder_start_token_id=2,
        ),
        "bert": lambda: transformers.BertConfig(**SIZES),
        "camembert": lambda: transformers.CamembertConfig(**roberta),
        "deberta": lambda: transformers.DebertaConfig(
            **SIZES | relative, pos_att_type=["c2p", "p2c"]
        ),
        "deberta-v2": lambda: transformers.DebertaV2Config(
            **SIZES | relative,
            pos_att_type=["p2c", "c2p"],
            position_buckets=8,
            share_att_key=True,
            norm_rel_ebd="layer_norm",
            position_biased_input=False,
        ),
        "distilbert": lambda: transformers.DistilBertConfig(
            vocab_size=VOCABULARY,
            dim=16,
            n_layers=SIZES["num_hidden_layers"],
            n_heads=4,
            hidden_dim=24,
            max_position_embeddings=64,
            initializer_range=0.3,
        ),
        "electra": lambda: transformers.ElectraConfig(**SIZES, embedding_size=8),
        "ernie": lambda: transformers.ErnieConfig(**SIZES),
        "eurobert": lambda: transformers.EuroBertConfig(
            **few_heads | special_tokens, mask_token_id=3
        ),
        "gemma2": lambda: transformers.Gemma2Config(
            **few_heads,
            head_dim=4,
            sliding_window=4,
            attn_logit_softcapping=2.0,
            query_pre_attn_scalar=3,
        ),
        "glm": lambda: transformers.GlmConfig(**few_heads | special_tokens, head_dim=4),
        "gpt2": lambda: transformers.GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=16,
            n_layer=SIZES["num_hidden_layers"],
            n_head=4,
            n_positions=64,
            initializer_range=0.3,
            **special_tokens,
        ),
        "gpt_neox": lambda: transformers.GPTNeoXConfig(**SIZES | special_tokens, rotary_pct=0.5),
        "llama": lambda: transformers.LlamaConfig(**few_heads),
        "mistral": lambda: transformers.MistralConfig(**few_heads, sliding_window=4),
        "modernbert": lambda: transformers.ModernBertConfig(
            **SIZES,
            local_attention=4,
            global_attn_every_n_layers=3,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
        ),
        "mpnet": lambda: transformers.MPNetConfig(**SIZES | {"pad_token_id": 1}),
        "qwen2": lambda: transformers.Qwen2Config(**few_heads),
        "qwen3": lambda: transformers.Qwen3Config(**few_heads, head_dim=4),
        "roberta": lambda: transformers.RobertaConfig(**roberta),
        "xlm-roberta": lambda: transformers.XLMRobertaConfig(**roberta),
        "t5": lambda: transformers.T5Config(**_T5),
        "mt5": lambda: transformers.MT5Config(**_T5),
        "umt5": lambda: transformers.UMT5Config(**_T5),
    }
    return factories[family]()


def model(family: str = "bert", seed: int = 0, attention: str = ATTENTION) -> Any:
    """A random model of a family, without dropout."""
    torch.manual_seed(seed)
    auto: Any = transformers.AutoModel
    if family_of(family).encoder_only:
        auto = transformers.AutoModelForTextEncoding
    body = auto.from_config(config(family), attn_implementation=attention).eval()
    # Change norms and biases too, because values of 1 and 0 could hide errors.
    with torch.no_grad():
        for parameter in body.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return body


def backbone(family: str = "bert", seed: int = 0) -> Backbone:
    """A random backbone of a family, without pooler."""
    body = model(family, seed)
    body.pooler = None
    return Backbone(body)


def random_backbone(family: str = "bert", seed: int = 0) -> Backbone:
    """A backbone with random weights in place of pretrained ones, as `Backbone.load` makes it."""
    body, random_weights = random_model(
        transformers.AutoModel, config(family), seed, attn_implementation=ATTENTION
    )
    body.pooler = None
    backbone = Backbone(body)
    backbone.random_weights = random_weights
    return backbone


def decoder(family: str = "llama", seed: int = 0) -> Backbone:
    """A random decoder with its LM head."""
    return Backbone(
        *split_lm_head(_language_model(transformers.AutoModelForCausalLM, family, seed))
    )


def encoder_decoder(family: str = "bart", seed: int = 0) -> Backbone:
    """A random encoder-decoder with its LM head: 3 layers of the encoder, 2 of the decoder."""
    return Backbone(*split_lm_head(sequence_to_sequence(family, seed)))


def sequence_to_sequence(family: str = "bart", seed: int = 0, attention: str = ATTENTION) -> Any:
    """The model of `encoder_decoder`, as transformers loads it."""
    # With less noise, T5 repeats its input, because input and output embeddings are the same.
    return _language_model(transformers.AutoModelForSeq2SeqLM, family, seed, attention, 0.3)


def _language_model(
    auto: Any, family: str, seed: int, attention: str = ATTENTION, noise: float = 0.05
) -> Any:
    torch.manual_seed(seed)
    model = auto.from_config(config(family), attn_implementation=attention).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return model


def prompt_for(
    kind: str, backbone: Backbone, count: int = 3, seed: int = 1
) -> DeepPrompt | SoftPrompt:
    """A random prompt of `count` virtual tokens, large enough to have an effect."""
    generator = torch.Generator().manual_seed(seed)
    if kind == "soft":
        return SoftPrompt(torch.randn(count, backbone.embedding_size, generator=generator))
    return DeepPrompt(torch.randn(backbone.prompt_shape(count), generator=generator))


def prompt_gradient(hidden: Tensor, mask: Tensor, prompt: DeepPrompt) -> Tensor:
    """The prompt's gradient of a random projection of the hidden states."""
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(hidden.shape, generator=generator) * mask[..., None]
    return torch.autograd.grad((hidden * direction).sum(), prompt.key_values)[0]


def texts(
    lengths: list[int], seed: int = 0, pad_token_id: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Random texts, padded on the right: `input_ids`, `attention_mask`, `token_types` [B, T]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), max(lengths))
    mask = (torch.arange(shape[1]) < torch.tensor(lengths)[:, None]).long()
    ids = torch.randint(3, VOCABULARY, shape, generator=generator)
    types = (torch.arange(shape[1]) >= torch.tensor(lengths)[:, None] // 2).long()
    return torch.where(mask.bool(), ids, pad_token_id), mask, types * mask


def prompted(
    arm: ArmName,
    family: str = "bert",
    seed: int = 0,
    count: int = 3,
    second: HeadKind = "positions",
) -> PromptedModel:
    """A model of an arm with a head of 3 classes and a second head (default: for spans).

    With a "language_model", the backbone has its LM head, so `family` must be causal, or a whole
    encoder-decoder.
    """
    record = ARMS[arm]
    if second == "language_model":
        body = (encoder_decoder if family in ENCODER_DECODERS else decoder)(family, seed)
    else:
        body = (random_backbone if record.random_backbone else backbone)(family, seed)
    if "lora" in record.parts:
        add_lora(body, rank=2, alpha=4.0, seed=seed)
    prompt = prompt_for(record.prompt, body, count) if record.prompt else None
    size = 0 if second == "language_model" else 2
    heads = Heads(["classes", second], [3, size], body.hidden_size, seed, [(), ()])
    return PromptedModel(body, prompt, heads, train_backbone=record.trains_backbone)


class TrainingCallback(callbacks.TrainingCallback):
    """Records the steps and messages of a run, and raises `stop` after step `at`."""

    def __init__(self, at: int = 0, stop: type[BaseException] = KeyboardInterrupt) -> None:
        self.at, self.stop = at, stop
        self.steps: list[int] = []
        self.lines: list[str] = []

    def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
        self.steps.append(int(run.train[-1]["step"]))
        if self.steps[-1] == self.at:
            raise self.stop

    def validated(self, run: TrainingRun) -> None:
        self.lines.append(f"validated {run.validation[-1]['step']}")

    def log(self, line: str) -> None:
        self.lines.append(line)
