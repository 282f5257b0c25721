"""State-dict names, once released, keep loading."""

from pathlib import Path

import pytest
import torch

from tests.checkpoints.write import build, run

CHECKPOINTS = sorted(Path(__file__).parent.glob("*.pt"))


@pytest.mark.parametrize("path", CHECKPOINTS, ids=lambda path: path.stem)
def test_an_old_checkpoint_loads_and_gives_the_outputs_of_its_time(path: Path) -> None:
    entries = torch.load(path, weights_only=True)
    assert len(entries) >= 7
    for entry in entries:
        module = build(*entry["module"])
        module.load_state_dict(entry["state_dict"])
        with torch.no_grad():
            output = run(module, entry["sequence"])
        torch.testing.assert_close(output, entry["output"], rtol=0, atol=1e-10)


def test_there_is_a_checkpoint_of_the_first_release() -> None:
    assert (Path(__file__).parent / "0.1.0.pt").exists()
