"""Factorized layers as ordinary ones, for tools that know only those of PyTorch."""

from torch import nn

from tt_conv.applications.compression.holders import copied, replaced_in
from tt_conv.applications.compression.low_rank_linear import LowRankLinear
from tt_conv.kernels.layer import TensorizedConv


def to_plain(model: nn.Module) -> nn.Module:
    """Return a copy of a compressed network whose factorized layers are ``nn.Sequential`` of ordinary ones.

    It computes the same, and tools that look for nn.Linear and nn.Conv find them: ``torch.export`` with dynamic shapes,
    ONNX, ``torch.fx``, quantization. Such a copy is to deploy; keep the compressed network to save and train.

    Parameters
    ----------
    model : nn.Module
        As :func:`compress` or :func:`load_compressed` returned it; it is left as it is.

    Returns
    -------
    nn.Module

    Examples
    --------
    >>> import torch
    >>> from torch import nn
    >>> from tt_conv.applications.compression import compress, to_plain
    >>> smaller, _ = compress(nn.Sequential(nn.Linear(64, 64)), budget=0.5)
    >>> plain = to_plain(smaller)
    >>> [type(layer).__name__ for layer in plain[0]]
    ['Linear', 'Linear']
    """
    plain = copied(model)
    table: dict[nn.Module, nn.Module] = {}
    for module in plain.modules():
        if isinstance(module, TensorizedConv):
            table[module] = module.to_plain()
        elif isinstance(module, LowRankLinear):
            table[module] = _linears(module)
        elif isinstance(module, nn.TransformerEncoderLayer):
            # Its fast path reads the weights of its layers instead of calling them; this is how PyTorch leaves it.
            module.activation_relu_or_gelu = 0
    return replaced_in(plain, table)


def _linears(layer: LowRankLinear) -> nn.Sequential:
    inner = nn.Linear(layer.in_features, layer.rank, bias=False, device="meta")
    outer = nn.Linear(layer.rank, layer.out_features, bias=False, device="meta")
    inner.weight = nn.Parameter(layer.input.detach().clone(), layer.input.requires_grad)
    outer.weight = nn.Parameter(layer.output.detach().clone(), layer.output.requires_grad)
    if layer.bias is not None:
        outer.bias = nn.Parameter(layer.bias.detach().clone(), layer.bias.requires_grad)
    return nn.Sequential(inner, outer).train(layer.training)
