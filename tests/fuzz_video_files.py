"""Damaged video files are refused, or all their frames are those of the sound file.

``python tests/fuzz_video_files.py``: eight containers, 20 places and three kinds of damage, which are 1 KiB of zeros,
1 KiB taken out (at place 0 that is the header), and everything from the place on cut off. All of it is a function of
the arguments alone.
"""

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.applications.data.files import CODECS, scene, write
from tt_conv.applications.data.errors import UnusableFile
from tt_conv.applications.data.frames import read_video

DAMAGES: dict[str, Callable[[bytes, int], bytes]] = {
    "zeros": lambda content, place: (
        content[:place] + bytes(len(content[place : place + 1024])) + content[place + 1024 :]
    ),
    "missing": lambda content, place: content[:place] + content[place + 1024 :],
    "cut off": lambda content, place: content[:place],
}


def outcome(sound: NDArray[np.uint8], path: Path) -> str:
    """What reading a damaged file gives: refused, the same frames, or frames that are missing or others."""
    try:
        found = read_video(path)
    except UnusableFile:
        return "refused"
    if len(found) != len(sound):
        return "FRAMES MISSING"
    return "the same" if np.array_equal(found, sound) else "OTHER FRAMES"


def fuzz(folder: Path, ending: str, places: int, seed: int = 0) -> Counter[tuple[str, str]]:
    """How often each kind of damage had which outcome, for one container."""
    path = write(folder / f"sound{ending}", scene(seed=seed), codec=CODECS[ending])
    sound, content = read_video(path), path.read_bytes()
    assert len(sound) == 60
    counts: Counter[tuple[str, str]] = Counter()
    for kind, damage in DAMAGES.items():
        for number in range(places):
            # Within equal parts, so that places lie everywhere; the first one is the header.
            within = np.random.default_rng([seed, number]).random() if number else 0.0
            path.write_bytes(damage(content, int((number + within) / places * len(content))))
            counts[kind, outcome(sound, path)] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", type=int, default=20, help="per container and kind of damage")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        for ending in CODECS:
            counts = fuzz(Path(folder), ending, arguments.places, arguments.seed)
            wrong += sum(count for (_, what), count in counts.items() if what.isupper())
            print(f"{ending:6}", ", ".join(f"{kind}: {count} {what}" for (kind, what), count in counts.items()))
    print(f"{wrong} accepted with other frames than the sound file's")
    raise SystemExit(wrong > 0)


if __name__ == "__main__":
    main()
