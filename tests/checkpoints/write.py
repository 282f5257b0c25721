"""Write the checkpoint of a release: ``python -m tests.checkpoints.write 0.1.0``.

A file that was written once is never written again: what it holds must load for ever.
"""

import sys
from pathlib import Path

import torch

import tt_conv
import tt_conv.layers

MODULES: list[tuple[str, list, dict]] = [
    ("ConvTT", [2, 3, [3, 5]], {"order": 2, "steps": 3, "rank": [2, 1], "core_bias": True}),
    ("ConvTT", [2, 3, 3], {"order": 2, "steps": 3, "rank": 2, "window": "fixed", "bias": False, "dim": 1}),
    ("ConvLSTM", [2, 3, 3], {}),
    ("ConvLSTM", [2, 3, 3], {"bias": False, "dim": 3}),
    ("ConvTTLSTM", [2, 3, 3], {"order": 2, "steps": 3, "rank": 2}),
    ("FramePredictor", [1, [2, 3], [1, 2]], {"kernel_size": 3, "skip_stride": 1, "rank": 2, "patch_size": 2}),
    ("FramePredictor", [1, [2, 3], [1, 1]], {"cell": "conv_lstm", "kernel_size": 3, "sigmoid": True}),
]


def build(name: str, arguments: list, options: dict) -> torch.nn.Module:
    owner = tt_conv if hasattr(tt_conv, name) else tt_conv.layers
    return getattr(owner, name)(*arguments, **options, dtype=torch.float64)


def run(module: torch.nn.Module, sequence: torch.Tensor) -> torch.Tensor:
    if isinstance(module, tt_conv.layers.FramePredictor):
        return module(sequence, 2)
    output = module(sequence)
    return output[0] if isinstance(output, tuple) else output


def main(version: str) -> None:
    path = Path(__file__).parent / f"{version}.pt"
    if path.exists():
        sys.exit(f"{path} exists and must stay as it is")
    torch.manual_seed(0)
    entries = []
    for name, arguments, options in MODULES:
        module = build(name, arguments, options)
        channels = arguments[0]
        sequence = torch.randn(1, 4, channels, *(4, 6, 4)[: options.get("dim", 2)], dtype=torch.float64)
        with torch.no_grad():
            output = run(module, sequence)
        entries.append(
            {
                "module": [name, arguments, options],
                "state_dict": dict(module.state_dict()),
                "sequence": sequence,
                "output": output,
            }
        )
    torch.save(entries, path)


if __name__ == "__main__":
    main(sys.argv[1])
