"""Parquet footers and page headers that are damaged, or made to mislead."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hms_dist.core.parquet import ParquetError, read_parquet
from hms_dist.core.parquet_pages import column_chunks


def test_a_flipped_bit_in_a_parquet_footer_does_not_end_the_process():
    """Arrow's view of a column chunk did, for an optional column that a flip makes a required one."""
    file = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2, None], "b": ["x", None, "x"]}), file, store_schema=False)
    content = file.getvalue()
    start = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    refused = set()
    for place in range(8 * start, 8 * len(content)):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        try:
            read_parquet(bytes(flipped))
        except ParquetError as error:
            refused.add(str(error))
    assert any("histogram size mismatch" in line for line in refused)


@pytest.mark.parametrize(
    "footer",
    [
        b"\x49\xf8" + b"\xff" * 9 + b"\x01",  # a list of 2**63 texts
        b"\x49\xf1" + b"\xff" * 9 + b"\x01",
        b"\x49" + b"\x19" * 1000,
        b"\x46" + b"\xff" * 4000,
        b"\x46\x02\x06\x08\x02",
        b"\x49\x16\x02\x00",
    ],
    ids=["texts without end", "flags without end", "depth", "a long number", "a field twice", "no structures"],
)
def test_a_senseless_parquet_footer_is_refused_at_once(footer):
    with pytest.raises(ValueError, match=r"cut short|too deep|10 bytes|twice|other values"):
        column_chunks(io.BytesIO(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1"))


def test_a_parquet_page_that_jumps_over_the_next_one_is_refused():
    file = io.BytesIO()
    pq.write_table(pa.table({"a": np.arange(1000)}), file, compression="none", use_dictionary=False)
    content = bytearray(file.getvalue())
    start = pq.read_metadata(file).row_group(0).column(0).data_page_offset
    size = content.index(b"\x15", start + 3)  # of the page as it is in the file
    content[size + 1 : size + 3] = b"\xfe\x7f"
    with pytest.raises(ParquetError, match="a page that reaches out of its column"):
        read_parquet(bytes(content))
