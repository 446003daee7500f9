"""A tiny random BERT with its tokenizer, saved the way Hugging Face saves models."""

import random

import pytest
import torch

GOOD = "fine lovely moving bright honest warm funny rich".split()  # noqa: SIM905
BAD = "dull stale loud empty false cold silly thin".split()  # noqa: SIM905
PLAIN = "the a film story scene actor and with very rather of it".split()  # noqa: SIM905


def make_rows(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences of which one word tells the label."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        words = rng.choices(PLAIN, k=rng.randint(3, 9))
        words.insert(rng.randrange(len(words)), rng.choice(GOOD if i % 2 else BAD))
        rows.append((" ".join(words), str(i % 2)))
    return rows


@pytest.fixture
def films(tmp_path):
    """A TSV file with a header and 240 labelled sentences."""
    file = tmp_path / "films.tsv"
    lines = ["sentence\tlabel", *("\t".join(row) for row in make_rows(240))]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def save_bert(folder, kind="BertModel", **options):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *PLAIN]
    tokenizer = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=64,
        initializer_range=0.5,  # so that its blocks do something
        **options,
    )
    getattr(transformers, kind)(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory):
    """Return the folder of a BERT without a head."""
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory):
    """Return the folder of a BERT with a head for two classes, named no and yes."""
    return save_bert(
        tmp_path_factory.mktemp("classifier"),
        "BertForSequenceClassification",
        id2label={0: "no", 1: "yes"},
        label2id={"no": 0, "yes": 1},
    )
