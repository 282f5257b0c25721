"""``tt-conv data``."""

from tt_conv.applications.video_prediction.settings import DataSettings


def inspect(data: DataSettings, out: str | None = None) -> None:
    """Say what a data set holds: tt-conv data inspect --data.kind own --data.path videos/ --out sheets.

    Args:
        data: Which sequences; --config takes a YAML file with them.
        out: Folder for contact sheets, new or empty; by default no pictures.
    """
    from tt_conv.applications.video_prediction.inspect_data import inspect_data

    print(inspect_data(data, out))


def moving_mnist(
    out: str,
    train: int = 10_000,
    validation: int = 3_000,
    test: int = 5_000,
    frames: int = 20,
    test_frames: int = 40,
    idx_folder: str | None = None,
    seed: int = 0,
) -> None:
    """Make the fixed sets of Moving-MNIST as files: tt-conv data moving_mnist --out moving_mnist.

    Args:
        out: Folder for train.npy, validation.npy and test.npy; files that are complete are kept.
        train: Number of training sequences.
        validation: Number of validation sequences.
        test: Number of test sequences.
        frames: Frames of a training or validation sequence.
        test_frames: Frames of a test sequence.
        idx_folder: IDX files of MNIST or Fashion-MNIST whose images move; by default the digits of this package.
        seed: Another seed gives other sequences.
    """
    from tt_conv.applications.video_prediction.data.fixed_moving_mnist import write_fixed_moving_mnist

    for path in write_fixed_moving_mnist(
        out,
        sequences={"train": train, "validation": validation, "test": test},
        frames={"train": frames, "validation": frames, "test": test_frames},
        idx_folder=idx_folder,
        seed=seed,
    ):
        print(path)


DATA = {
    "_help": "Inspect a data set, or make the fixed sets of Moving-MNIST.",
    "inspect": inspect,
    "moving_mnist": moving_mnist,
}
