"""Tables for people, JSON for machines."""

from __future__ import annotations

import json

from .targets import ROOT


def markdown(header: list[str], rows: list[list[str]], names: int = 1) -> str:
    """Aligned for a terminal as well; the first `names` columns to the left."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]

    def line(row: list[str]) -> str:
        padded = [cell.ljust(width) if column < names else cell.rjust(width) for column, (cell, width) in enumerate(zip(row, widths))]
        return f"| {' | '.join(padded)} |"

    rule = [("-" * width) if column < names else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(header), f"| {' | '.join(rule)} |", *map(line, rows)])


def write(name: str, text: str, document: dict) -> None:
    """Prints the text, and writes target/`name`.json."""
    directory = ROOT / "target"
    directory.mkdir(exist_ok=True)
    path = directory / f"{name}.json"
    path.write_text(json.dumps(document, indent=2) + "\n")
    print(f"\n{text}\nwritten: {path}")
