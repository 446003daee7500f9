"""What has no kernel at infinite width, and why."""

import torch
from torch import nn
from torch.nn import functional as F

from .rules import refuse

refuse(
    "batch normalisation ties the inputs of a batch together, so that there is no kernel between "
    "two inputs; use LayerNorm, GroupNorm or RMSNorm, or mercer.infinite.monte_carlo in eval mode",
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    F.batch_norm,
)
refuse(
    "the mean of a maximum over positions has no closed form; use average pooling, or "
    "mercer.infinite.monte_carlo",
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
    F.max_pool1d,
    F.max_pool2d,
    F.max_pool3d,
    torch.max,
    torch.amax,
    "max",
    "amax",
)
refuse(
    "a softmax over channels ties them together; leave it out (losses work on logits), or use "
    "mercer.infinite.monte_carlo",
    nn.Softmax,
    nn.LogSoftmax,
    nn.Softmin,
    F.softmax,
    F.log_softmax,
    torch.softmax,
    torch.log_softmax,
    "softmax",
    "log_softmax",
)
refuse(
    "scores divided by the root of the key's width stay random however wide the heads are, so "
    "that a softmax of them has no closed form; use mercer.infinite.SelfAttention, whose scores "
    "are divided by the width, or mercer.infinite.monte_carlo",
    nn.MultiheadAttention,
    nn.TransformerEncoderLayer,
    nn.TransformerEncoder,
    nn.TransformerDecoderLayer,
    nn.TransformerDecoder,
    nn.Transformer,
    F.scaled_dot_product_attention,
)
refuse(
    "a recurrence uses its random weights again and again, which has no rule here; use "
    "mercer.infinite.monte_carlo",
    nn.RNN,
    nn.LSTM,
    nn.GRU,
    nn.RNNCell,
    nn.LSTMCell,
    nn.GRUCell,
)
refuse(
    "each channel is normalised on its own: its scale is random at any width",
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
)
refuse(
    "an embedding of words has no covariance of positions; embed first, and give the kernel the "
    "sequences",
    nn.Embedding,
    nn.EmbeddingBag,
    F.embedding,
)
refuse("a trained slope has no rule; use LeakyReLU", nn.PReLU, F.prelu)
refuse("transposed convolutions have no rule", nn.ConvTranspose1d, nn.ConvTranspose2d)
