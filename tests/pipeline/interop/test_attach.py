"""`attach`: a deep prompt on a model of transformers, in loops that are not ours."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from pipeline.errors import UserError
from pipeline.interop.attach import PromptedTransformer, attach
from pipeline.model.backbone import Backbone
from pipeline.model.pretrained_model import quiet_transformers
from pipeline.world import write_corpus
from tests.support import tiny
from tests.support.fences import blocks
from tests.support.paths import ROOT
from tests.support.small_project import make_backbone

LABELS = 3


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed sets these variables in the process of other tests; accelerate would use them."""
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def model_of(family: str, kind: str = "ForTokenClassification") -> Any:
    """A tiny random model with the attention that transformers chooses."""
    torch.manual_seed(0)
    config = tiny.config(family)
    config.num_labels = 2 if kind == "ForQuestionAnswering" else LABELS
    return getattr(transformers, f"AutoModel{kind}").from_config(config)


def batch() -> dict[str, Tensor]:
    """Two texts, the second of them padded, with labels."""
    ids = torch.tensor([[4, 5, 6, 7, 8], [9, 10, 11, 0, 0]])
    labels = torch.tensor([[0, 1, 2, 0, 1], [2, 0, 1, -100, -100]])
    return {"input_ids": ids, "attention_mask": (labels != -100).long(), "labels": labels}


def our_loss(prompted: PromptedTransformer, inputs: dict[str, Tensor]) -> float:
    """The loss by the forward pass of our own training, with the classifier of the model."""
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    backbone = Backbone(prompted.model.base_model)
    hidden = backbone(ids, mask, torch.zeros_like(ids), prompted.prompt())
    head = getattr(prompted.model, "classifier", None) or prompted.model.score
    return cross_entropy(head(hidden).flatten(0, 1), inputs["labels"].flatten()).item()


def trainer(prompted: PromptedTransformer, folder: Path, **options: Any) -> transformers.Trainer:
    rows = [{name: value[row] for name, value in batch().items()} for row in range(2)]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=2,
        per_device_train_batch_size=2,
        learning_rate=0.05,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        disable_tqdm=True,
        **options,
    )
    return transformers.Trainer(prompted, arguments, train_dataset=rows, eval_dataset=rows)


@pytest.mark.parametrize("family", ["bert", "deberta-v2", "electra", "gpt2", "mpnet", "qwen2"])
def test_the_loss_is_that_of_our_training(family: str) -> None:
    model = model_of(family)
    plain = model.eval()(**batch()).loss.item()
    prompted = attach(model, 4, seed=1)
    with torch.no_grad():
        prompted.prompt.key_values *= 50
    loss = prompted.train()(**batch()).loss
    assert loss.item() == pytest.approx(our_loss(prompted, batch()), abs=1e-6)
    assert loss.item() != pytest.approx(plain, abs=1e-3)
    assert model(**batch()).loss.item() == pytest.approx(plain, abs=1e-6), "without the prompt"
    loss.backward()
    trained = {name for name, value in prompted.named_parameters() if value.grad is not None}
    assert trained == {"prompt.key_values"}
    assert (prompted.prompt.key_values.grad.flatten(1).abs().sum(1) > 0).all(), "every layer"


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_encoder_decoders_read_a_text_as_their_own_question_answering_does(family: str) -> None:
    """`XForQuestionAnswering` reads the shifted text with its decoder, and so does our training."""
    prompted = attach(model_of(family, "ForQuestionAnswering"), 4, seed=1)
    with torch.no_grad():
        prompted.prompt.key_values *= 50
    inputs = {name: value for name, value in batch().items() if name != "labels"}
    mask = inputs["attention_mask"]
    output = prompted(**inputs)
    backbone = Backbone(prompted.model.base_model)
    hidden = backbone(*inputs.values(), torch.zeros_like(mask), prompted.prompt())
    expected = prompted.model.qa_outputs(hidden).unbind(-1)
    real = mask.bool()
    for actual, ours in zip((output.start_logits, output.end_logits), expected, strict=True):
        torch.testing.assert_close(actual[real], ours[real], atol=1e-5, rtol=1e-4)
    output.start_logits.sum().backward()
    assert (prompted.prompt.key_values.grad.flatten(1).abs().sum(1) > 0).all(), "every attention"


def test_trainer_trains_and_saves_only_the_prompt(tmp_path: Path) -> None:
    prompted = attach(model_of("bert"), 4)
    frozen = {name: value.clone() for name, value in prompted.model.named_parameters()}
    expected = our_loss(prompted, batch())
    used = trainer(prompted, tmp_path, save_steps=2)
    used.train()
    first, second = (log["loss"] for log in used.state.log_history if "loss" in log)
    assert first == pytest.approx(expected, abs=1e-4), "Trainer rounds the losses of its log"
    assert second < first
    assert all(
        torch.equal(value, frozen[name]) for name, value in prompted.model.named_parameters()
    )
    after = our_loss(prompted, batch())
    assert used.evaluate()["eval_loss"] == pytest.approx(after, abs=1e-6)
    restored = attach(model_of("bert"), 4, seed=9)
    saved = transformers.trainer_utils.get_last_checkpoint(str(tmp_path))
    weights = Path(saved) / "model.safetensors"
    assert weights.stat().st_size < 8_000
    tensors = load_file(weights)
    assert tensors.keys() == {"prompt.key_values"}
    restored.load_state_dict(tensors)
    assert our_loss(restored, batch()) == pytest.approx(after, abs=1e-6)


def test_trainer_computes_our_loss_on_one_batch(tmp_path: Path) -> None:
    prompted = attach(model_of("bert"), 4)
    loss = trainer(prompted, tmp_path).compute_loss(prompted, batch())
    assert loss.item() == pytest.approx(our_loss(prompted, batch()), abs=1e-6)


def test_accelerate_trains_the_prompt() -> None:
    accelerate = pytest.importorskip("accelerate")
    prompted = attach(model_of("bert"), 4)
    optimizer = torch.optim.AdamW([prompted.prompt.key_values], lr=0.05)
    accelerator = accelerate.Accelerator(cpu=True)
    wrapped, optimizer = accelerator.prepare(prompted, optimizer)
    losses = []
    for _ in range(3):
        expected = our_loss(prompted, batch())
        loss = wrapped(**batch()).loss
        assert loss.item() == pytest.approx(expected, abs=1e-6)
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[2] < losses[0]


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bart", "ForSeq2SeqLM"),
        ("bert", "ForTokenClassification"),
        ("llama", "ForCausalLM"),
        ("t5", "ForSeq2SeqLM"),
    ],
)
def test_gradient_checkpointing_changes_no_gradient(family: str, kind: str) -> None:
    """Also in models with a cache, which is on by default."""
    gradients = []
    for checkpointed in (False, True):
        prompted = attach(model_of(family, kind), 4)
        if checkpointed:
            prompted.gradient_checkpointing_enable()
        prompted(**batch()).loss.backward()
        gradients.append(prompted.prompt.key_values.grad)
    torch.testing.assert_close(*gradients)


def test_a_classifier_can_be_trained_and_saved_too() -> None:
    prompted = attach(model_of("bert"), 4)
    prompted.model.classifier.requires_grad_(True)
    state = prompted.state_dict()
    assert state.keys() == {"prompt.key_values", "model.classifier.weight", "model.classifier.bias"}
    with pytest.raises(RuntimeError, match=r"classifier\.bias"):
        prompted.load_state_dict({"prompt.key_values": state["prompt.key_values"]})


def test_the_prompt_starts_from_a_text_or_from_a_seed() -> None:
    text = torch.tensor([[4, 5, 6, 7, 8, 9]])
    model = model_of("bert")
    prompt = attach(model, 4, input_ids=text).prompt
    expected = Backbone(model.base_model).text_key_values(
        text, torch.ones_like(text), torch.zeros_like(text), 4
    )
    assert torch.equal(prompt.key_values, expected)
    one, same, other = (attach(model, seed=seed).prompt.key_values for seed in (1, 1, 2))
    assert one.shape[3] == 32
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_the_signature_and_the_name_are_those_of_the_model() -> None:
    model = model_of("bert", "ForQuestionAnswering")
    prompted = attach(model, 4)
    assert inspect.signature(prompted.forward) == inspect.signature(model.forward)
    assert type(prompted).__name__ == "PromptedBertForQuestionAnswering"
    assert prompted.config is model.config


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus("ner", tmp_path / "corpus", 20, 7)
    make_backbone(tmp_path / "model", tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    found = blocks(ROOT / "docs/howto/own-loop.md")
    code = "\n".join(block.text for block in found).replace("path/to/model", "model")
    values: dict[str, Any] = {}
    with quiet_transformers():
        exec(code, values)
    assert len(found) == 2
    with torch.no_grad():
        values["model"].prompt.key_values.zero_()
        assert values["model"](**values["batch"], labels=values["labels"]).loss != values["loss"]
    assert values["loss"].item() < 0.65
    assert values["model"].prompt.num_virtual_tokens == 32


def test_dropout_of_the_model_stays_off() -> None:
    prompted = attach(model_of("bert"), 4).train()
    assert prompted.training
    assert not any(module.training for module in prompted.model.modules())


def test_models_and_numbers_that_do_not_work_are_refused() -> None:
    with pytest.raises(UserError, match="num_virtual_tokens is 0; give a number above 0"):
        attach(model_of("bert"), 0)
    with pytest.raises(UserError, match="model is a Linear; give a model of transformers"):
        attach(torch.nn.Linear(2, 2))
    with pytest.raises(UserError, match=r"backbone: .*'marian' model: it is an encoder-decoder"):
        attach(
            transformers.MarianModel(
                transformers.MarianConfig(
                    pad_token_id=0,
                    vocab_size=30,
                    d_model=16,
                    encoder_layers=1,
                    decoder_layers=1,
                    encoder_ffn_dim=16,
                    decoder_ffn_dim=16,
                    encoder_attention_heads=2,
                    decoder_attention_heads=2,
                )
            )
        )
