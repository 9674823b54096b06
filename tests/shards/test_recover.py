"""Index rows read back from the tars are the rows that the writer gave."""

import pandas as pd
import pyarrow as pa

from hms_dist.rendering.recover import rows_of_tar
from hms_dist.shards.index import as_frame, read_index, rows_schema
from hms_dist.shards.manifest import read_manifest, tar_names
from hms_dist.shards.schema import INDEX_NAME


def test_rows_of_all_tars_are_the_index(tiny):
    index = read_index(tiny.folder / INDEX_NAME).frame
    manifest = read_manifest(tiny.folder)
    rows = []
    for number, name in enumerate(tar_names(manifest)):
        for row in rows_of_tar(tiny.folder / name, number):
            rows.append(row | {"eeg_fingerprint": "10-00000000", "spectrogram_fingerprint": "20-00000000"})
    found = as_frame(pa.Table.from_pylist(rows, schema=rows_schema(["json", *manifest.panels])))
    pd.testing.assert_frame_equal(found, index[list(found.columns)])
    assert set(index.columns) - set(found.columns) == {name for name in index.columns if name.startswith("fold_")}
