"""Execute a notebook of notebooks/ and write it with its outputs as a Markdown page.

python scripts/site/notebook.py notebooks/tutorial.py docs/tutorial.md

Pictures go to docs/images/NAME-1.png, ... The page keeps the text and code of the source, so `check` can compare them
without running anything.
"""

import argparse
import base64
import io
import posixpath
import re
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import jupytext
from nbclient import NotebookClient
from PIL import Image

REPOSITORY = Path(__file__).parents[2]
LOG_TIME = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d rank 0 (?:INFO )?", re.M)
KEPT_LINES = 8
"""Lines of a long output that are kept at either end."""
TQDM_WARNING = re.compile(r"^.*TqdmWarning.*\n.*\n", re.M)
"""tqdm asks for a package that draws its bars as widgets."""
PROGRESS = re.compile(r"^.*\d+%\|.*\s*", re.M)
ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def parser() -> argparse.ArgumentParser:
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("source", type=Path, help="notebook, as jupytext's py:percent")
    words.add_argument("page", type=Path, help="Markdown page to write")
    return words


def main() -> None:
    given = parser().parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cells = executed(given.source, Path(folder))
    images = given.page.parent / "images"
    given.page.write_text(page(given.source, cells, images))


def executed(source: Path, folder: Path, timeout_s: int = 3600) -> list[Any]:
    """Cells of a notebook with their outputs, run in `folder`. A cell that fails raises an error."""
    notebook = jupytext.read(source)
    NotebookClient(notebook, timeout=timeout_s, resources={"metadata": {"path": str(folder)}}).execute()
    return list(notebook.cells)


def page(source: Path, cells: list[Any], images: Path | None) -> str:
    """Markdown of a notebook. `images`: folder for its pictures; None: pictures are named, but not written."""
    parts, number = [], 0
    for cell in cells:
        parts.append(source_text(cell))
        for output in merged(cell.get("outputs", [])):
            picture = output.get("data", {}).get("image/png")
            if picture:
                number += 1
                name = f"{source.stem}-{number}.png"
                if images is not None:
                    _save(picture, images / name)
                parts.append(f"![Output of the cell above](images/{name})")
            elif "text/html" in output.get("data", {}):
                parts.append(_table(output["data"]["text/html"]))
            elif text := shortened(output_text(output)):
                parts.append(f"```{{ .text .output }}\n{text}\n```")
    head = f"<!-- Written by scripts/site/notebook.py from notebooks/{source.name}: edit that file. -->"
    return "\n\n".join([head, *parts]) + "\n"


def merged(outputs: list[Any]) -> Iterator[Any]:
    """Outputs of a cell; log lines and printed text that follow each other are one."""
    for is_stream, some in groupby(outputs, key=lambda output: output["output_type"] == "stream"):
        found = list(some)
        yield from [{"text": "".join(output["text"] for output in found)}] if is_stream else found


def shortened(text: str) -> str:
    """Text without its middle, if it is long."""
    lines = text.rstrip().splitlines()
    left_out = len(lines) - 2 * KEPT_LINES
    if left_out > 1:
        lines[KEPT_LINES:-KEPT_LINES] = [f"... {left_out} lines ..."]
    return "\n".join(lines)


def source_text(cell: Any) -> str:
    """A cell's Markdown, its links relative to docs/, or its code."""
    if cell.cell_type == "markdown":
        return re.sub(r"\]\(\.\./([^)]+)\)", lambda link: f"]({posixpath.relpath(link[1], 'docs')})", str(cell.source))
    return f"```python\n{cell.source}\n```"


def output_text(output: Any) -> str:
    """Text of an output, without terminal colours, progress bars and times of log lines."""
    text = output.get("text") or output.get("data", {}).get("text/plain", "")
    for pattern in (ESCAPES, PROGRESS, TQDM_WARNING, LOG_TIME):
        text = pattern.sub("", text)
    return text


def _table(text: str) -> str:
    """pandas' table without its style sheet."""
    text = re.sub(r"<style scoped>.*?</style>\s*", "", text, flags=re.S)
    text = re.sub(r' (?:border|class|style)="[^"]*"', "", text)
    return re.sub(r"\n\s*", "\n", text).strip()


def _save(picture: str, file: Path) -> None:
    """Write a PNG of few colours, which is a third of the size."""
    file.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    drawn.quantize(64, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    main()
