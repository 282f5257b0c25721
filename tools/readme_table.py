"""Print the benchmark table of the README, made from what the benchmarks wrote.

python tools/readme_table.py            # print it
python tools/readme_table.py --write    # and put it into README.md
python tools/readme_table.py --machine h100     # of what was measured elsewhere, docs/benchmarks/recurrence.h100.json
"""

import argparse
import json
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- made by tools/readme_table.py -->", "<!-- end -->"
CASE = "12 layers batch 2"
ROWS = {
    "baseline": "ConvTT-LSTM from plain PyTorch operations",
    "ConvTT-LSTM": "ConvTT-LSTM",
    "input_rank 8": "ConvTT-LSTM, `input_rank=8`",
    "ConvLSTM": "ConvLSTM",
}


def table(machine: str = "") -> str:
    """Return the table as Markdown, with what it was measured on."""
    name = f"recurrence.{machine}.json" if machine else "recurrence.json"
    data = json.loads((ROOT / "docs" / "benchmarks" / name).read_text())
    cases = {result["case"]: result for result in data["results"]}
    training, inference = cases[f"training {CASE}"], cases[f"inference {CASE}"]
    conv_lstm = training["contenders"]["ConvLSTM fp32"]["macs"]
    lines = [
        "| | multiply-adds | speed, training | speed, inference | in bf16 | memory, training |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for key, name in ROWS.items():
        trained, ran, low = (
            case["contenders"][f"{key} {precision}"]
            for case, precision in ((training, "fp32"), (inference, "fp32"), (training, "bf16"))
        )
        lines.append(
            f"| {name} | {trained['macs'] / conv_lstm:.2f} | {1 / trained['time']:.2f}x | {1 / ran['time']:.2f}x "
            f"| {1 / low['time']:.2f}x | {trained['memory']:.2f}x |"
        )
    given, future = training["frames"]
    machine = ", ".join(str(value) for value in (data["machine"]["device"], f"torch {data['machine']['torch']}"))
    network = CASE.replace(" batch", ", batch")
    caption = (
        f"The published network of {network}, 64 x 64 pixels, {given} frames given and {future} predicted; "
        'multiply-adds are relative to the ConvLSTM, all else to the first row in fp32; "in bf16" is the speed '
        f"of training. {machine}; `python -m benchmarks.run --only recurrence`."
    )
    return "\n".join([*lines, "", caption])


def with_table(readme: str) -> str:
    """Return the README with the present table between its marks."""
    before, _, rest = readme.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--machine", default="")
    options = parser.parse_args()
    print(table(options.machine))
    if options.write:
        path = ROOT / "README.md"
        path.write_text(with_table(path.read_text()))
