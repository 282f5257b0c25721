"""The Conv-TT algebra exists once outside the tests."""

import ast
from pathlib import Path

import pytest
import torch

from tt_conv import ConvTT
from tt_conv.conv_tt import program, registers
from tt_conv.layers import ConvTTLSTM, ConvTTLSTMCell

PACKAGE = Path(program.__file__).parents[1]
CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "conv_einsum", "conv_einsum_expression"}
# Where projections and cores meet a convolution: the programs, the registers, the dense kernel, its decomposition.
HOMES = {"program.py", "registers.py", "tensor.py", "fit"}


def names(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Name):
            found.add(node.id)
    return found


def test_projections_meet_convolutions_in_one_place_only() -> None:
    for path in PACKAGE.rglob("*.py"):
        used = names(path)
        if "projections" in used and used & CONVOLUTIONS:
            assert HOMES & set(path.relative_to(PACKAGE).parts), f"{path} evaluates a Conv-TT of its own"


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
        ConvTTLSTMCell(1, 2, 3, window=window)(torch.zeros(1, 1, 4, 4))


def test_a_layer_walks_by_the_registers_of_its_conv_tt(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError("the registers were asked")

    monkeypatch.setattr(registers.Registers, "advance", refuse)
    with pytest.raises(RuntimeError, match="the registers were asked"):
        ConvTTLSTM(1, 2, 3)(torch.zeros(1, 2, 1, 4, 4))


@pytest.mark.parametrize("window", ["sliding", "fixed"])
@pytest.mark.parametrize("boundary", ["zeros", "circular", "stagewise"])
def test_a_cell_shows_its_kernel_and_its_programs(boundary: str, window: str, capsys: pytest.CaptureFixture) -> None:
    cell = ConvTTLSTMCell(1, 2, 3, order=2, steps=3, rank=2, window=window, boundary=boundary)
    assert cell.recurrent.to_tensor().shape == (8, 2, 3, 7, 7)
    cell.recurrent.explain((1, 1, 2, 8, 8))
    assert "<- chosen" in capsys.readouterr().out
