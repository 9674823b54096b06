"""The most that is read of input from elsewhere. What is larger is refused in one line, never read in part.

A size that another file announces (a manifest those of its tars, an index those of its members) is a limit too.
"""

JSON_BYTES = 64 << 20
"""A JSON file. A manifest takes some 170 bytes a shard."""
JSON_DEPTH = 64
"""Lists and objects within one another."""
YAML_BYTES = 512 << 10
"""A YAML file, or YAML text on the command line; its reader takes some seconds for so much."""
YAML_DEPTH = 64
"""Lists and mappings within one another."""
YAML_VALUES = 100_000
"""Values of a YAML file once its aliases are replaced by what they stand for."""
YAML_FILES = 100
"""Files that one configuration names, within one another."""
FORM_CHARACTERS = 6
"""How a place of a text is filled, such as {slice:0>6}: a width of ten digits would take all memory."""
CSV_BYTES = 1 << 30
"""A label table or a submission."""
LOG_BYTES = 1 << 30
"""A file of one JSON object a line: metrics.jsonl, a search's journal."""
PARQUET_BYTES = 8 << 30
"""A Parquet file."""
PARQUET_ROWS = 1 << 28
"""Rows of a Parquet file: an EEG of 15 days."""
PARQUET_FREE_BYTES = 256 << 20
PARQUET_RATIO = 100
"""The values of a Parquet file take at most so many bytes of memory, and this many for each byte of the file."""
PARQUET_VALUE_BYTES = 8
"""A number in memory, or the place of a text in its column's dictionary."""
INDEX_TEXT = 200
"""Characters of a text of an index: a key, a fingerprint."""
PANEL_BYTES = 64 << 20
"""The array of one panel of one sample."""
NUM_PANELS = 256
"""Panels of a sample."""
JSON_MEMBER_BYTES = 1 << 20
"""The json member of a sample."""
TAR_BYTES = 1 << 40
"""A tar; reads by range count in 40 bits."""


def of_zstd(num_bytes: int) -> int:
    """Most bytes of a zstd frame that holds `num_bytes` (ZSTD_COMPRESSBOUND)."""
    return num_bytes + (num_bytes >> 8) + 128
