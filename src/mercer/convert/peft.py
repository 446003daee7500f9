"""SNNK adapters for PEFT: few trained parameters, in any model that PEFT takes.

Importing this module, or `SNNKConfig` from `mercer.convert`, makes the method known to PEFT.
From then on everything is PEFT's own: `peft.get_peft_model`, several named adapters, saving and
loading, ``modules_to_save``, the ``Trainer`` of transformers, accelerate.

Train, save, and load again:

>>> import tempfile, torch
>>> from peft import PeftModel, get_peft_model
>>> from transformers import BertConfig, BertForSequenceClassification
>>> from mercer.convert import SNNKConfig
>>> bert = BertConfig(
...     vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
...     intermediate_size=32,
... )
>>> base = BertForSequenceClassification(bert).eval()
>>> tokens = torch.tensor([[2, 7, 9, 3]])
>>> before = base(tokens).logits
>>> weights = {name: tensor.clone() for name, tensor in base.state_dict().items()}
>>> model = get_peft_model(base, SNNKConfig(num_features=32, bottleneck=4, task_type="SEQ_CLS"))
>>> bool((model(tokens).logits == before).all())  # adapters start at the identity
True
>>> model.print_trainable_parameters()
trainable params: 450 || all params: ... || trainable%: ...
>>> optimizer = torch.optim.AdamW(p for p in model.parameters() if p.requires_grad)
>>> model(tokens, labels=torch.tensor([1])).loss.backward()
>>> optimizer.step()
>>> folder = tempfile.mkdtemp()
>>> model.save_pretrained(folder)  # adapters and classifier, nothing of BERT
>>> fresh = BertForSequenceClassification(bert)
>>> _ = fresh.load_state_dict(weights)
>>> loaded = PeftModel.from_pretrained(fresh, folder)
>>> bool((loaded(tokens).logits == model.eval()(tokens).logits).all())
True

A process that loads such a folder must import `mercer.convert.peft` first; where it does not,
PEFT stops at a ``KeyError`` of the method's name, which says so.

With ``save_projection=False`` files hold what was trained alone, and the frozen features are
drawn again from ``seed`` and each module's name. A module must then have the same name when it is
loaded as when it was trained, as PEFT asks of the trained tensors anyway.

``merge_adapter()`` adds the linear part of a ``"replacement"`` to the frozen weight, where there
is one (``rank``), and ``unmerge_adapter()`` restores it bit by bit from a copy that is kept until
then. A branch is no linear map and cannot be merged into a weight: ``merge_and_unload()`` leaves
plain modules that hold the frozen module and the branch, and compute the same without PEFT.
"""

import importlib.util
from importlib.metadata import version

if importlib.util.find_spec("peft") is None:
    raise ModuleNotFoundError(
        "SNNK adapters for PEFT need it: pip install 'mercer[hf]'", name="peft"
    )

from peft.tuners.tuners_utils import BaseTuner

if not hasattr(BaseTuner, "_remove_adapter_name_from_key"):
    # Older ones save the tensors of all adapters into each one's file (before 0.20), and cannot
    # name tensors that lie deeper than a word below an adapter's name (before 0.21).
    raise ImportError(f"SNNK adapters need PEFT 0.21 or newer, got {version('peft')}", name="peft")

from .peft_config import SNNKConfig as SNNKConfig
from .peft_layer import SNNKLayer as SNNKLayer
from .peft_model import SNNKModel as SNNKModel
from .peft_registration import register

register(SNNKConfig, SNNKModel)
