"""Tables for a terminal and for Markdown."""

from collections.abc import Sequence


def text_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out cells in columns: the first one to the left, the others to the right.

    Parameters
    ----------
    header : sequence of str
        Column heads; a line break makes a head of several lines.
    rows : sequence of sequence of str
        Cells, as many in each row as there are heads.

    Returns
    -------
    str

    Examples
    --------
    >>> print(text_table(["model", "MSE\\nx 1e-3"], [["ConvLSTM", "12.5"], ["mean frame", "30.25"]]))
                   MSE
    model       x 1e-3
    ----------  ------
    ConvLSTM      12.5
    mean frame   30.25
    """
    heads = [head.split("\n") for head in header]
    height = max(map(len, heads))
    head_rows = list(zip(*([""] * (height - len(head)) + head for head in heads), strict=True))
    widths = [max(map(len, column)) for column in zip(*head_rows, *rows, strict=True)]
    rule = ["-" * width for width in widths]
    return "\n".join(_line(row, widths) for row in [*head_rows, rule, *rows])


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out cells as a table in Markdown, numbers to the right.

    Examples
    --------
    >>> print(markdown_table(["", "MSE"], [["copy", "1.5"]]))
    |  | MSE |
    | --- | ---: |
    | copy | 1.5 |
    """
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rule, *rows))


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [cells[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(cells[1:], widths[1:], strict=True))]
    return "  ".join(aligned).rstrip()
