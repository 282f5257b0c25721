"""Compressed networks on disk: a folder with the weights as safetensors, and what they are the weights of."""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from tt_conv.applications import gate
from tt_conv.applications.compression.candidates import build_layer, factor_shapes
from tt_conv.applications.compression.holders import copied, find, past_the_tree, replaced_in
from tt_conv.applications.compression.layers import Layer
from tt_conv.applications.compression.low_rank_linear import LowRankLinear
from tt_conv.checks import LARGEST_SIZE, check_sizes
from tt_conv.kernels.layer import TensorizedConv
from tt_conv.kernels.table import FORMATS
from tt_conv.layers import ConvLSTM, ConvTTLSTM, ConvTTLSTMCell, FramePredictor
from tt_conv.layers.cell import RecurrentCell

WEIGHTS, CONFIG = "model.safetensors", "config.json"
_KIND, _VERSION = "tt-conv compressed network", 1
_LARGEST_CONFIG = 1 << 22
_OURS: dict[str, Callable[..., nn.Module]] = {
    "ConvLSTM": ConvLSTM,
    "ConvTTLSTM": ConvTTLSTM,
    "FramePredictor": FramePredictor,
}


def save_compressed(model: nn.Module, path: Path | str) -> Path:
    """Write a compressed network to a new folder: ``model.safetensors`` and ``config.json``.

    Parameters
    ----------
    model : nn.Module
        As :func:`compress` returned it, perhaps trained further.
    path : path
        A folder that does not exist yet. It appears when all is written.

    Returns
    -------
    Path

    Raises
    ------
    FileExistsError
        If there is something of that name.
    ModuleNotFoundError
        If safetensors is not installed.
    ValueError
        If the model holds parameters that its state dict lacks, which would be lost.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from torch import nn
    >>> from tt_conv.applications.compression import compress, save_compressed
    >>> small, report = compress(nn.Sequential(nn.Conv2d(4, 16, 3)), budget=0.5)
    >>> with TemporaryDirectory() as folder:
    ...     sorted(file.name for file in save_compressed(small, Path(folder, "small")).iterdir())
    ['config.json', 'model.safetensors']
    """
    _check_complete(model)
    weights = weights_on_disk(model)
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{str(path)!r} exists already; choose another name, or move it away")
    path.parent.mkdir(parents=True, exist_ok=True)
    config = {"kind": _KIND, "version": _VERSION, "model": _architecture(model), "layers": _layers(model)}
    config["sha256"] = sha256(weights).hexdigest()
    partial = Path(tempfile.mkdtemp(prefix=f".partial-{path.name}-", dir=path.parent))
    try:
        (partial / WEIGHTS).write_bytes(weights)
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        partial.chmod(0o755)
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return path


def weights_on_disk(model: nn.Module) -> bytes:
    """Return what the file of a network's weights holds."""
    weights = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    content: bytes = _safetensors().torch.save(weights)
    return content


def load_compressed(instance: nn.Module | None, path: Path | str) -> nn.Module:
    """Return a network that :func:`save_compressed` wrote.

    No code of the files runs. Nothing is returned, and nothing changed, unless everything fits.

    Parameters
    ----------
    instance : nn.Module or None
        The network before compression, with any weights; it is left as it is. ``None`` for a ``ConvLSTM``,
        ``ConvTTLSTM`` or ``FramePredictor``, which the files describe completely.
    path : path
        The folder.

    Returns
    -------
    nn.Module
        In the mode of ``instance``, and on its device and in its dtypes, to which the values are converted as
        ``load_state_dict`` does it. Without one: in evaluation mode, on the CPU, in the dtypes of the file; on the
        CPU in those dtypes also if ``instance`` is on the meta device.

    Raises
    ------
    ValueError
        If the files are damaged, or describe another network.
    FileNotFoundError
        If they are not there.

    Examples
    --------
    >>> from tempfile import TemporaryDirectory
    >>> from torch import nn
    >>> from tt_conv.applications.compression import compress, load_compressed, save_compressed
    >>> smaller, _ = compress(nn.Sequential(nn.Linear(64, 64)), budget=0.5)
    >>> with TemporaryDirectory() as place:
    ...     folder = save_compressed(smaller, place + "/smaller")
    ...     loaded = load_compressed(nn.Sequential(nn.Linear(64, 64)), folder)
    >>> bool((loaded[0].weight == smaller[0].weight).all())
    True
    """
    path = Path(path)
    config = _read_config(path / CONFIG)
    weights = read_weights(path / WEIGHTS)
    _check_digest(path / WEIGHTS, config["sha256"])
    if instance is None:
        model = _ours(config["model"], path)
    else:
        model = copied(instance)
    model = _with_layers(model, config["layers"], weights)
    weights = _present_names(model, weights)
    _refuse_misfits(model, weights, path)
    # What is on the meta device, our own networks among them, has no values to copy to.
    model.load_state_dict(weights, assign=any(value.is_meta for value in model.state_dict().values()))
    return model.eval() if instance is None else model


def _check_complete(model: nn.Module) -> None:
    """Refuse a model with parameters that a fresh instance would have other values of."""
    saved = {id(parameter) for parameter in model.parameters()}
    lost = next(find(model, lambda part: isinstance(part, nn.Parameter) and id(part) not in saved), None)
    if lost is not None:
        raise ValueError(
            f"this {type(model).__name__} would not be the same after loading: its state dict lacks {lost[0]}. "
            "Hold parameters in attributes or an nn.ParameterList, layers in attributes or an nn.ModuleList"
        )


def _safetensors() -> Any:
    try:
        import safetensors.torch
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "compressed networks are stored as safetensors: pip install 'tt-conv[applications]'", name=error.name
        ) from error
    return safetensors


def _layers(model: nn.Module) -> dict[str, dict[str, Any]]:
    """Return format and rank of every layer that was replaced."""
    layers: dict[str, dict[str, Any]] = {}
    for name, module in model.named_modules():
        if isinstance(module, TensorizedConv):
            rank = module.rank
            layers[name] = {"format": module.factorization, "rank": [rank] if isinstance(rank, int) else list(rank)}
        elif isinstance(module, LowRankLinear):
            layers[name] = {"format": "svd", "rank": [module.rank]}
    return layers


def _architecture(model: nn.Module) -> dict[str, Any] | None:
    """Return the constructor call of one of our networks; ``None`` for others."""
    if type(model) is FramePredictor:
        cells = [list(cast(nn.ModuleList, block)) for block in model.blocks]
        first: Any = cells[0][0]
        arguments = {
            "in_channels": model.in_channels,
            "hidden_channels": [block[0].hidden_channels for block in cells],
            "layers_per_block": [len(block) for block in cells],
            "cell": "conv_tt_lstm" if isinstance(first, ConvTTLSTMCell) else "conv_lstm",
            "skip_stride": model.skip_stride,
            "sigmoid": model.sigmoid,
            "patch_size": model.patch_size,
        }
        return {"class": "FramePredictor", "arguments": {**arguments, **_cell_arguments(first)}}
    if type(model) in (ConvLSTM, ConvTTLSTM):
        cell: RecurrentCell = model.cell  # type: ignore[assignment]
        arguments = {"in_channels": cell.in_channels, "hidden_channels": cell.hidden_channels}
        return {"class": type(model).__name__, "arguments": {**arguments, **_cell_arguments(cell)}}
    return None


def _cell_arguments(cell: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"kernel_size": list(cell.kernel_size), "dim": cell.dim}
    if not isinstance(cell, ConvTTLSTMCell):
        return {**arguments, "bias": cell.conv.bias is not None}
    train = cell.recurrent
    options = {"order": train.order, "steps": train.steps, "rank": list(train.rank), "window": train.window}
    options |= {"boundary": train.boundary, "input_rank": cell.input_rank, "bias": train.bias is not None}
    if cell.input_kernel_size != cell.kernel_size:
        options["input_kernel_size"] = list(cell.input_kernel_size)
    arguments |= options
    arguments["kernel_size"] = [list(size) for size in train.kernel_size]
    return arguments


def _read_config(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST_CONFIG:
        raise ValueError(f"{str(path)!r} is too large for a description of a network")
    try:
        config = gate.read_json(path)
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is damaged: {error}") from error
    if not isinstance(config, dict) or config.get("kind") != _KIND or config.get("version") != _VERSION:
        raise ValueError(f"{str(path)!r} does not describe a compressed network of version {_VERSION}")
    layers = config.get("layers")
    if not isinstance(layers, dict) or not all(map(_is_layer, layers.values())):
        raise ValueError(f"{str(path)!r} is damaged: its layers need a format of {', '.join(FORMATS)} and a rank")
    return {"layers": layers, "model": config.get("model"), "sha256": config.get("sha256")}


def _check_digest(path: Path, digest: object) -> None:
    """Refuse weights that changed since they were written; older folders tell no digest."""
    if digest is not None and sha256(path.read_bytes()).hexdigest() != digest:
        raise ValueError(f"{str(path)!r} is damaged: its content is not what {CONFIG} says: give another copy")


def _is_layer(entry: object) -> bool:
    if not isinstance(entry, dict) or set(entry) != {"format", "rank"} or entry["format"] not in tuple(FORMATS):
        return False
    rank = entry["rank"]
    return isinstance(rank, list) and all(type(r) is int and 1 <= r <= LARGEST_SIZE for r in rank)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a file of safetensors; a damaged one is refused."""
    safetensors = _safetensors()
    if not path.is_file():
        raise FileNotFoundError(f"{str(path)!r} is not there")
    try:
        weights: dict[str, Tensor] = safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{str(path)!r} is truncated or damaged: {error}") from error
    gate.check_weights(path, weights)
    return weights


def _ours(entry: object, path: Path) -> nn.Module:
    """Build one of our networks without values: sizes from a file cannot fill the memory."""
    if entry is None:
        raise ValueError(f"{str(path)!r} holds a network that is not ours: give an instance of it to load into")
    is_ours = isinstance(entry, dict) and isinstance(entry.get("class"), str) and entry["class"] in _OURS
    if not isinstance(entry, dict) or not is_ours or not isinstance(entry.get("arguments"), dict):
        raise ValueError(f"{str(path)!r} is damaged: the model must be one of {', '.join(_OURS)}")
    arguments = entry["arguments"]
    try:
        check_sizes(arguments)
        return _OURS[entry["class"]](**{**arguments, "device": "meta"})
    except (TypeError, ValueError, RuntimeError) as error:  # PyTorch's RuntimeError: sizes beyond counting
        raise ValueError(f"{str(path)!r} is damaged: {gate.one_line(error)}") from error


def _with_layers(model: nn.Module, layers: Mapping[str, Any], weights: Mapping[str, Tensor]) -> nn.Module:
    """Give layers the structure that they were compressed to."""
    elsewhere = past_the_tree(model)
    for name, entry in layers.items():
        try:
            layer = model.get_submodule(name)
        except AttributeError as error:
            raise ValueError(f"the files hold a compressed layer {name!r}, which this model does not have") from error
        if not isinstance(layer, Layer) or (isinstance(layer, nn.Linear) and entry["format"] != "svd"):
            kind = type(layer).__name__
            raise ValueError(f"the files hold {name!r} as {entry['format']}, but here it is {kind}")
        prefix = f"{name}." if name else ""
        held = sum(value.numel() for key, value in weights.items() if key.startswith(prefix))
        shapes = factor_shapes(layer, entry["format"], tuple(entry["rank"]))
        if sum(torch.Size(shape).numel() for shape in shapes.values()) > held:
            raise ValueError(f"the files hold fewer weights for {name!r} than its rank {entry['rank']} needs")
        factors = {key: torch.zeros(shape, device=layer.weight.device) for key, shape in shapes.items()}
        new = build_layer(layer, entry["format"], factors)
        model = replaced_in(model, {layer: new}, everywhere=id(layer) in elsewhere)
    return model


def _present_names(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return weights by their present names: older files have the factors of "conv_tt" in the layer itself."""
    older = {
        f"{name}.{factor}" if name else factor: f"{name}.factors.{factor}" if name else f"factors.{factor}"
        for name, module in model.named_modules()
        if isinstance(module, TensorizedConv)
        for factor in module.factors
    }
    return {older.get(name, name): value for name, value in weights.items()}


def _refuse_misfits(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    expected = model.state_dict()
    missing, extra = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    problems = [f"missing: {', '.join(missing)}"] if missing else []
    problems += [f"not in this {type(model).__name__}: {', '.join(extra)}"] if extra else []
    for name in sorted(set(expected) & set(weights)):
        if expected[name].shape != weights[name].shape:
            given, wanted = tuple(weights[name].shape), tuple(expected[name].shape)
            problems.append(f"{name}: expected shape {wanted}, got {given}")
        elif expected[name].is_floating_point() != weights[name].is_floating_point():
            problems.append(f"{name}: expected {expected[name].dtype}, got {weights[name].dtype}")
    if problems:
        raise ValueError(f"the weights in {str(path)!r} do not fit. " + "; ".join(problems))
