"""Compiled loops where their code can be kept and where it cannot, as in a container that is read only."""

import subprocess
import sys
import zlib

import numpy as np
import pytest

SCRIPT = """
import sys
import numpy as np
from hms_dist.signals.haar import haar_statistics
from hms_dist.stream.read.checksum import crc32_by_tables

data = np.frombuffer(sys.stdin.buffer.read(), np.uint8)
haar_statistics(data.reshape(1, -1).astype(float), np.zeros(1, np.int64), 400)
print(int(crc32_by_tables(data.ctypes.data, data.size)))
"""


@pytest.mark.parametrize("writable", [True, False])
def test_they_run_and_where_nothing_is_kept_it_is_logged_once(tmp_path, monkeypatch, writable, rng):
    monkeypatch.setenv("NUMBA_CACHE_LOCATOR_CLASSES", "UserProvidedCacheLocator")
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept") if writable else "/dev/null/kept")
    data = rng.integers(0, 256, 4096, np.uint8).tobytes()
    done = subprocess.run([sys.executable, "-c", SCRIPT], input=data, capture_output=True, check=False)
    text = done.stderr.decode()
    assert done.returncode == 0, text
    assert int(done.stdout) == zlib.crc32(data)
    assert any(tmp_path.glob("kept/*/*.nbc")) == writable
    assert text.count("set NUMBA_CACHE_DIR to one that can") == (not writable)


CHECKSUM = """
import sys
import numpy as np
from hms_dist.stream.read.checksum import crc32_by_tables

data = np.frombuffer(sys.stdin.buffer.read(), np.uint8)
print(int(crc32_by_tables(data.ctypes.data, data.size)))
"""


def test_damaged_code_is_compiled_again_and_that_is_logged(rng, tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    data = rng.integers(0, 256, 100, np.uint8).tobytes()

    def checksum():
        done = subprocess.run([sys.executable, "-c", CHECKSUM], input=data, capture_output=True, check=True)
        assert int(done.stdout) == zlib.crc32(data)
        return done.stderr.decode().count("compiled code is damaged")

    def damage(path):
        content = bytearray(path.read_bytes())
        place = int(rng.integers(len(content)))
        if rng.random() < 0.5:
            content[place] ^= 1 << int(rng.integers(8))
        else:
            del content[place:]
        path.write_bytes(content)

    assert checksum() == 0
    for kind in ("nbi", "nbc"):
        for path in tmp_path.glob(f"*/*.{kind}"):
            damage(path)
        assert checksum() == 1, kind
    assert checksum() == 0
