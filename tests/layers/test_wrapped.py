"""Weights of wrapped models load under the names of the bare one."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from tt_conv.applications.video_prediction.compression_source import fill
from tt_conv.layers import ConvLSTMCell, load_published_state_dict
from tt_conv.layers.wrapped import unwrapped

PREFIXES = ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "model._orig_mod."]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 3)
        self.last = nn.Linear(3, 1)


@pytest.mark.parametrize("prefix", [*PREFIXES, "model.module._orig_mod.", "_fsdp_wrapped_module."])
def test_weights_are_filled_in(tmp_path: Path, prefix: str) -> None:
    saved, other = Net(), Net()
    torch.save({prefix + name: value for name, value in saved.state_dict().items()}, tmp_path / "a.pt")
    fill(other, tmp_path / "a.pt", "models:Net")
    assert all(map(torch.equal, saved.state_dict().values(), other.state_dict().values()))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_published_weights(prefix: str) -> None:
    cell = ConvLSTMCell(1, 2, 3)
    weights = {"conv.weight": torch.randn(8, 3, 3, 3), "conv.bias": torch.randn(8)}
    load_published_state_dict(cell, {prefix + name: value for name, value in weights.items()})
    assert torch.equal(cell.conv.bias, weights["conv.bias"])


def test_what_torch_writes() -> None:
    """The names that wrappers of PyTorch give, of the whole model or of a part."""
    net, part = Net(), Net()
    part.first = torch.compile(part.first, backend="eager")
    averaged = AveragedModel(net)
    whole = [torch.compile(model, backend="eager") for model in (net, averaged)]
    for wrapped in (*whole, nn.DataParallel(net), averaged, part):
        assert [*unwrapped(wrapped.state_dict(), net.state_dict())] == [*net.state_dict()]


def test_a_model_keeps_a_name_of_its_own() -> None:
    names = ["model.weight", "module.bias", "weight"]
    assert [*unwrapped(dict.fromkeys(names, 0), names)] == names
    assert [*unwrapped({"_orig_mod.weight": 0}, ["_orig_mod.weight"])] == ["_orig_mod.weight"]
    assert [*unwrapped({"first": 0, "n_averaged": 1}, ["first", "n_averaged"])] == ["first", "n_averaged"]
