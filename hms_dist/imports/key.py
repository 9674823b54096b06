"""The key folder beside an imported set: what must not be given away with it.

OUT.key/files.csv has the name, patient and start of each numbered recording, OUT.key/files/ the results by recording,
from which an import continues after a kill, and OUT.key/texts.csv the annotations that no class was found for.
OUT.key/imports/ has a lease of each process that imports, OUT.key/files/ one of each recording that is being imported.
"""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from hms_dist.core.csv_table import CsvTable
from hms_dist.core.errors import UserError
from hms_dist.core.files import atomic, read_object, sealed, unsealed, write_json

FILES_NAME, TEXTS_NAME, SPEC_NAME, LEASE_NAME = "files.csv", "texts.csv", "import.json", "import.claim"
_PRIVATE = 0o700


@dataclass(frozen=True)
class KeyRow:
    """A recording in the key."""

    number: int
    file: str
    """Path below the data folder."""
    patient_id: int
    patient: str
    start: str
    """Date and time in the header; empty if not read."""


class Key:
    """The key folder of a set."""

    def __init__(self, out: Path) -> None:
        """`out`: folder of the set. Nothing is created."""
        self.folder = out.with_name(f"{out.name}.key")

    @property
    def lock(self) -> Path:
        """Path of the lease for changes of the key and the tables."""
        return self.folder / LEASE_NAME

    @property
    def imports(self) -> Path:
        """Folder of the leases of the processes that import."""
        return self.folder / "imports"

    def file_lease(self, number: int) -> Path:
        """Path of the lease of a recording."""
        return self.folder / "files" / f"{number}.claim"

    def create(self) -> None:
        """Create the folder, for its owner alone."""
        for folder in (self.folder / "files", self.imports):
            folder.mkdir(parents=True, exist_ok=True)
        os.chmod(self.folder, _PRIVATE)

    def spec(self) -> dict[str, Any] | None:
        """Options of the import that wrote the set; None if there is none."""
        path = self.folder / SPEC_NAME
        found = unsealed(read_object(path), path) if path.exists() else None
        return found or None

    def write_spec(self, spec: Mapping[str, Any]) -> None:
        """Write the options."""
        write_json(self.folder / SPEC_NAME, sealed(spec))

    def rows(self) -> list[KeyRow]:
        """Read the key. Raises UserError if it was damaged."""
        path = self.folder / FILES_NAME
        if not path.exists():
            return []
        table = CsvTable(path, "the key of an imported set")
        names = [field.name for field in fields(KeyRow)]
        table.check_names(names, names)
        numbers, patients = table.integers("number").tolist(), table.integers("patient_id").tolist()
        texts = (table.words(name) for name in ("file", "patient", "start"))
        return [
            KeyRow(number, file, patient_id, patient, start)
            for number, patient_id, file, patient, start in zip(numbers, patients, *texts, strict=True)
        ]

    def write_rows(self, rows: Sequence[KeyRow]) -> None:
        """Write the key."""
        write_csv(self.folder / FILES_NAME, [field.name for field in fields(KeyRow)], [astuple(row) for row in rows])

    def result_path(self, number: int) -> Path:
        """Path of the result of a recording."""
        return self.folder / "files" / f"{number}.json"

    def result(self, number: int) -> dict[str, Any] | None:
        """Read the result of a recording; None if it is not there, or damaged."""
        path = self.result_path(number)
        try:
            return unsealed(read_object(path), path) or None
        except UserError:
            return None

    def write_result(self, number: int, result: Mapping[str, Any]) -> None:
        """Write the result of a recording, which marks its files as complete."""
        write_json(self.result_path(number), sealed(result))


def write_csv(path: Path, names: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table of text, atomically; None becomes an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(rows)
    with atomic(path, "w") as file:
        file.write(text.getvalue())
