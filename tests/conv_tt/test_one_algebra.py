"""The Conv-TT algebra exists once outside the tests."""

import ast
import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from tt_conv import ConvTT, conv_einsum, conv_einsum_expression
from tt_conv.conv_tt import program, registers
from tt_conv.layers import ConvTTLSTM, ConvTTLSTMCell

PACKAGE = Path(program.__file__).parents[1]
CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d, torch.conv1d, torch.conv2d, torch.conv3d, torch.convolution)
NAMES = {"conv1d", "conv2d", "conv3d", "conv_einsum", "conv_einsum_expression"}
# Where projections and cores meet a convolution: the programs, the registers, the dense kernel.
HOMES = {"conv_tt/program.py", "conv_tt/registers.py", "conv_tt/tensor.py"}


def holds_convolution(value: object) -> bool:
    """Say whether a value is a convolution, or a collection, however deep, with one in it."""
    if isinstance(value, dict):
        return any(map(holds_convolution, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(holds_convolution, value))
    if isinstance(value, partial):
        return holds_convolution(value.func)
    return any(value is convolution for convolution in (*CONVOLUTIONS, conv_einsum, conv_einsum_expression))


def evaluates(source: str, variables: Mapping[str, object]) -> bool:
    """Say whether a file with these global variables reads projections and calls convolutions, by whatever name."""
    used, values = set(), []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            used.add(node.attr)
            owner = variables.get(node.value.id) if isinstance(node.value, ast.Name) else None
            if isinstance(owner, ModuleType):
                values.append(getattr(owner, node.attr, None))
        elif isinstance(node, ast.Name):
            used.add(node.id)
            values.append(variables.get(node.id))
    return "projections" in used and (bool(used & NAMES) or any(map(holds_convolution, values)))


@pytest.mark.parametrize(
    "line",
    [
        "from torch.nn import functional as F; y = F.conv2d(x, layer.projections[0])",
        "from torch.nn.functional import conv2d as apply; y = apply(x, layer.projections[0])",
        "from tt_conv.runtime.formats import CONVOLUTIONS; y = CONVOLUTIONS[2](x, layer.projections[0])",
        "from tt_conv.runtime import formats; y = formats.CONVOLUTIONS[2](x, layer.projections[0])",
        "from torch.nn.functional import conv2d as c; apply = [(2, c)]; y = apply[0][1](x, layer.projections[0])",
        "from tt_conv import conv_einsum as apply; y = apply('bihw,rihw->brhw|hw', x, layer.projections[0])",
    ],
)
def test_an_evaluation_is_seen_whatever_name_its_convolution_has(line: str) -> None:
    variables: dict[str, object] = {}
    layer = SimpleNamespace(projections=[torch.zeros(1, 1, 1, 1)])
    exec(line, variables | {"x": torch.zeros(1, 1, 2, 2), "layer": layer}, variables)
    assert evaluates(line, variables)
    assert not evaluates(line.replace("projections", "kernels"), variables)


def test_projections_meet_convolutions_in_one_place_only() -> None:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        source = path.read_text()
        if "projections" not in source:
            continue
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
        if evaluates(source, vars(importlib.import_module(name))):
            found.add(path.relative_to(PACKAGE))
    assert {str(path) for path in found} == HOMES


def test_a_cell_owns_no_conv_tt_parameter_beside_its_recurrent_layer() -> None:
    cell = ConvTTLSTMCell(1, 2, 3)
    assert isinstance(cell.recurrent, ConvTT)
    assert {name.split(".")[0] for name, _ in cell.named_parameters()} == {"input_conv", "recurrent"}


@pytest.mark.parametrize("window", ["sliding", "fixed"])
def test_a_cell_evaluates_by_the_program_of_its_conv_tt(window: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("the program was asked")

    monkeypatch.setattr(program.CompiledProgram, "bind", refuse)
    with pytest.raises(RuntimeError, match="the program was asked"):
        ConvTTLSTMCell(1, 2, 3, window=window, input_kernel_size=5)(torch.zeros(1, 1, 4, 4))


def test_a_layer_walks_by_the_registers_of_its_conv_tt(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("the registers were asked")

    monkeypatch.setattr(registers.Registers, "advance", refuse)
    with pytest.raises(RuntimeError, match="the registers were asked"):
        ConvTTLSTM(1, 2, 3)(torch.zeros(1, 2, 1, 4, 4))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("window", ["sliding", "fixed"])
def test_a_single_call_with_stagewise_borders_evaluates_by_its_conv_tt(
    window: str, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("its algebra was asked")

    if training:
        monkeypatch.setattr(ConvTT, "bind_for", refuse)
    else:
        monkeypatch.setattr(registers.StagewiseLevels, "newest", refuse)
    with torch.no_grad(), pytest.raises(RuntimeError, match="its algebra was asked"):
        ConvTTLSTMCell(1, 2, 3, window=window).train(training)(torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("window", ["sliding", "fixed"])
@pytest.mark.parametrize("boundary", ["zeros", "circular", "stagewise"])
def test_a_cell_shows_its_kernel_and_its_programs(boundary: str, window: str, capsys: pytest.CaptureFixture) -> None:
    cell = ConvTTLSTMCell(1, 2, 3, order=2, steps=3, rank=2, window=window, boundary=boundary)
    assert cell.recurrent.to_tensor().shape == (8, 2, 3, 7, 7)
    cell.recurrent.explain((1, 1, 2, 8, 8))
    assert "<- chosen" in capsys.readouterr().out
