"""Upper bounds on input from elsewhere. Larger input is rejected with a one-line error, never read in part.

Sizes announced by another file (of tars by the manifest, of members by the index) are bounds too.
"""

JSON_BYTES = 64 << 20
"""Bytes of a JSON file. A manifest takes about 170 bytes per shard."""
JSON_DEPTH = 64
"""Nesting of lists and objects in JSON."""
YAML_BYTES = 512 << 10
"""Bytes of a YAML file, or of YAML text on the command line; parsing this much takes a few seconds."""
YAML_DEPTH = 64
"""Nesting of lists and mappings in YAML."""
YAML_VALUES = 100_000
"""Values in a YAML file after its aliases are expanded."""
YAML_FILES = 100
"""Nesting of configuration files that name other files."""
FORM_CHARACTERS = 6
"""Characters of a format specification such as {slice:0>6}: a width of ten digits would exhaust memory."""
AUDIO_BYTES = 1 << 30
"""Bytes of a flac or wav file."""
AUDIO_SAMPLES = 1 << 28
"""Samples of all channels of a flac or wav file: 90 minutes at 48 kHz. Silence compresses without bound."""
CSV_BYTES = 1 << 30
"""Bytes of a label table or a submission."""
LOG_BYTES = 1 << 30
"""Bytes of a JSON-lines file: metrics.jsonl, the journal of a search."""
PARQUET_BYTES = 8 << 30
"""Bytes of a Parquet file."""
PARQUET_ROWS = 1 << 28
"""Rows of a Parquet file: an EEG of 15 days."""
PARQUET_FREE_BYTES = 256 << 20
PARQUET_RATIO = 100
"""Bytes in memory of the values of a Parquet file: a base amount, plus a multiple of the file size."""
PARQUET_VALUE_BYTES = 8
"""Bytes of a number in memory, or of a dictionary index of a text column."""
INDEX_TEXT = 200
"""Characters of a text in an index: a key, a fingerprint."""
PANEL_BYTES = 64 << 20
"""Bytes of one panel's array in one sample."""
CANVAS_PIXELS = 1 << 24
"""Pixels of a canvas: 4096 x 4096."""
NUM_PANELS = 256
"""Panels per sample."""
JSON_MEMBER_BYTES = 1 << 20
"""Bytes of the json member of a sample."""
TAR_BYTES = 1 << 40
"""Bytes of a tar; range reads use 40-bit offsets."""


def max_zstd_bytes(num_bytes: int) -> int:
    """Largest zstd frame of `num_bytes` bytes (ZSTD_COMPRESSBOUND)."""
    return num_bytes + (num_bytes >> 8) + 128
