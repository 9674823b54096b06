"""Shard sets from elsewhere: names that leave a folder or become commands, sizes that fill the memory."""

import hashlib
import http.server
import io
import json
import os
import shutil
import threading
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from hms_dist.cli import main
from hms_dist.core import limits
from hms_dist.core.errors import UserError
from hms_dist.core.files import digest, indented_json
from hms_dist.core.parquet import ParquetError, read_parquet
from hms_dist.core.remote import RemoteFile, RetryPolicy
from hms_dist.shards.index import open_set
from hms_dist.shards.manifest import read_manifest
from hms_dist.shards.schema import PanelSpec, is_member_name
from hms_dist.stream.read.cache import CacheConfig
from hms_dist.stream.read.reader import ShardReader
from hms_dist.stream.read.storage import StorageConfig

PANELS = ["eeg_spectrogram"]
SEALED = "the set was not made by hms-dist render; render it again"


@pytest.fixture
def folder(shard_set, tmp_path) -> Path:
    """A copy of a set, to be corrupted."""
    return shutil.copytree(shard_set, tmp_path / "set")


def seal(folder, change=None):
    """Let the digests of a set fit its files, and its manifest what `change` makes of it."""
    value = json.loads((folder / "manifest.json").read_bytes())
    for entry in value["files"]:
        content = (folder / entry["name"]).read_bytes()
        entry |= {"num_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if change is not None:
        change(value)
    value.pop("digest")
    (folder / "manifest.json").write_bytes(indented_json({**value, "digest": digest(value)}))


def rewrite_index(folder, change):
    path = folder / "index.parquet"
    pq.write_table(change(pq.read_table(path)), path)
    seal(folder)


def replaced(table, name, values, kind=None):
    place = table.column_names.index(name)
    return table.set_column(place, name, pa.array(values, kind or table[name].type))


def refusal(call):
    with pytest.raises(UserError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["$(touch PWNED).tar", "../../victim/x.tar", "/etc/passwd", "shard-000001.tar", "shard-000000.tar\n", "", 7]
)
def test_a_file_of_another_name_is_refused_before_it_is_used(folder, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    seal(folder, lambda value: value["files"][0].update(name=name))
    line = refusal(lambda: open_set(folder))
    assert line.startswith(f"{folder}/manifest.json: files: expected shard-000000.tar, found ")
    assert line.endswith(SEALED)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]


def test_a_cache_is_in_its_folder_whatever_the_names(folder, tmp_path):
    manifest, index = open_set(folder)
    config = StorageConfig(cache=CacheConfig(folder=tmp_path / "cache"))
    ShardReader(f"file://{folder}", manifest, index, PANELS, storage=config).read(np.array([0]))
    kept = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert kept
    assert {path.parent.name for path in kept} == {"shard-000000.tar"}


@pytest.mark.parametrize("name", ["../x", "a.b", "json", "", "a/b", "$(x)", "a b", "1a", "x" * 65, "a\n"])
def test_names_of_panels_are_plain(name):
    assert not is_member_name(name)
    assert is_member_name("eeg_spectrogram")


def test_a_panel_of_another_name_is_refused(folder):
    seal(folder, lambda value: value["panels"].update({"../x": value["panels"].pop("traces")}))
    assert "panels: '../x' cannot name a member" in refusal(lambda: open_set(folder))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda v: v.pop("files"), "files: expected a list, found None"),
        (lambda v: v["files"].pop(), "files: expected 3 shards and index.parquet, found 3 entries"),
        (lambda v: v["files"][0].update(num_bytes=-1), "integers of samples and bytes"),
        (lambda v: v["files"][0].update(num_samples=1e9), "integers of samples and bytes"),
        (lambda v: v["files"][0].update(num_samples=10**9), "do not fit into"),
        (lambda v: v["files"][0].update(sha256="x"), "expected a SHA-256, found 'x'"),
        (lambda v: v.update(num_samples=True), "num_samples: expected an integer, found True"),
        (lambda v: v.update(num_samples=7), "num_samples: expected "),
        (lambda v: v.update(panels={}), "panels: expected 1 to "),
        (lambda v: v["panels"]["traces"].update(shape=[-640, 1600]), "shape: expected integers of at least 1"),
        (lambda v: v["panels"]["traces"].update(shape=[100000, 1600000]), "takes more than 67108864 bytes per sample"),
        (lambda v: v["panels"]["traces"].update(shape="x"), "bad panel specification"),
        (lambda v: v["panels"]["traces"].update(codec="npy.gz"), "unknown 'bit' or 'npy.gz'"),
        (lambda v: v["panels"]["traces"].update(rows_hz=[1e999]), "digest does not match"),
        (lambda v: v["sources"]["table"].update(name="../x"), "a file name and a SHA-256"),
        (lambda v: v["sources"].update(split="/"), "expected a split"),
        (lambda v: v.update(render_config=[]), "render_config: expected an object, found []"),
        (lambda v: v.update(versions=3), "versions: expected texts, found 3"),
    ],
)  # fmt: skip
def test_a_sealed_and_senseless_manifest_is_one_line(folder, change, text, capsys):
    try:
        seal(folder, change)
    except ValueError:  # what cannot be sealed: an infinity
        value = json.loads((folder / "manifest.json").read_bytes())
        change(value)
        (folder / "manifest.json").write_text(json.dumps(value).replace("Infinity", "1e999"))
    assert text in refusal(lambda: open_set(folder))
    assert main(["verify", "--shards", str(folder), "--fast"]) in (0, 2)  # 0: the copy of the manifest is whole
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["[" * 200_000 + "]" * 200_000, '{"a":' * 100 + "1" + "}" * 100, '{"format_version": NaN}', "1" * 9999]
)
def test_json_that_is_deep_or_none_is_one_line(folder, text):
    (folder / "manifest.json").write_text(text)
    assert "not readable as JSON" in refusal(lambda: open_set(folder))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda t: t.drop_columns(["traces.crc32"]), "column traces.crc32 is missing"),
        (
            lambda t: replaced(t, "shard", [str(n) for n in t["shard"].to_pylist()], pa.string()),
            "column shard is string",
        ),
        (lambda t: replaced(t, "shard", [99] * len(t)), "row 0, column shard: expected 0 to "),
        (lambda t: replaced(t, "traces.offset", [-1] * len(t)), "row 0, column traces.offset"),
        (lambda t: replaced(t, "traces.offset", [2**39] * len(t)), "row 0: traces ends at byte 5497"),
        (lambda t: replaced(t, "traces.size", [2**31 - 1] * len(t)), "row 0, column traces.size"),
        (lambda t: replaced(t, "traces.size", [None] * len(t)), "column traces.size: "),
        (lambda t: replaced(t, "key", ["$x^"] * len(t)), "row 0: its key is not <eeg_id>-<eeg_sub_id>"),
        (lambda t: replaced(t, "lpd_vote", [-7] * len(t)), "row 0, column lpd_vote"),
        (lambda t: replaced(t, "fold_of_5", [5] * len(t)), "row 0, column fold_of_5: expected 0 to 4, found 5"),
        (lambda t: replaced(t, "eeg_label_offset_seconds", [np.nan] * len(t)), "column eeg_label_offset_seconds"),
        (lambda t: t.slice(0, 5), "expected "),
        (lambda t: pa.concat_tables([t.slice(0, 1), t.slice(0, len(t) - 1)]), "two rows have the same key"),
    ],
)
def test_a_sealed_and_senseless_index_is_one_line(folder, change, text, capsys):
    rewrite_index(folder, change)
    line = refusal(lambda: open_set(folder))
    assert text in line
    assert line.startswith(f"{folder}/index.parquet: ")
    assert main(["verify", "--shards", str(folder)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_damaged_index_is_not_parsed_and_its_message_is_one_line(folder):
    path = folder / "index.parquet"
    content = path.read_bytes()
    for place in range(0, len(content), 997):
        path.write_bytes(content[:place] + bytes(min(64, len(content) - place)) + content[place + 64 :])
        if path.read_bytes() != content:
            assert "not the index that the manifest names" in refusal(lambda: open_set(folder))


class TestSizes:
    """Small input that announces, or expands to, much more."""

    def test_a_zstd_frame_that_announces_gigabytes_is_not_decompressed(self):
        spec = PanelSpec(shape=(4, 16), dtype="bit", codec="npy.zst", axes=("row", "time"), unit="lit")
        squeeze = zstandard.ZstdCompressor().compressobj(size=3 * 10**9)
        frame = squeeze.compress(bytes(1000)) + squeeze.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
        with pytest.raises(ValueError, match="it announces 3000000000"):
            spec.decode(frame)
        unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 20))
        with pytest.raises(ValueError, match="not a zstd frame"):
            spec.decode(unsized)

    def test_a_parquet_file_of_few_bytes_and_many_values_is_not_decoded(self, monkeypatch):
        monkeypatch.setattr(limits, "PARQUET_FREE_BYTES", 1 << 16)
        for column in (
            pa.array(np.zeros(10**6, np.int64)),
            pa.array(["x" * 1000]).take(pa.array(np.zeros(10**5, "i4"))),
        ):
            file = io.BytesIO()
            pq.write_table(pa.table({"a": column}), file, compression="zstd")
            with pytest.raises(ParquetError, match="so small a file may"):
                read_parquet(file.getvalue())

    def test_a_parquet_page_that_announces_more_than_the_footer_is_not_decompressed(self, monkeypatch):
        monkeypatch.setattr(limits, "PARQUET_FREE_BYTES", 1 << 19)
        monkeypatch.setattr(limits, "PARQUET_RATIO", 0)
        file = io.BytesIO()
        pq.write_table(pa.table({"a": np.zeros(20_000, np.int64)}), file, compression="zstd", use_dictionary=False)
        content = bytearray(file.getvalue())
        read_parquet(bytes(content))
        start = pq.read_metadata(file).row_group(0).column(0).data_page_offset
        assert content[start : start + 3] == b"\x15\x00\x15"
        content[start + 3 : start + 6] = b"\xfe\xff\x7f"
        with pytest.raises(ParquetError, match="column a: a page of more than 524288 bytes"):
            read_parquet(bytes(content))


class Server:
    """Answers every request with what `answer` writes to it."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                try:
                    answer(self)
                except OSError:  # the client has seen enough
                    self.close_connection = True

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.handle_error = lambda *_: None
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        return self.url

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()


def send(handler, code, headers, body=b""):
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name, str(value))
    handler.end_headers()
    handler.wfile.write(body)


def send_gzip(handler):
    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = squeeze.compress(bytes(100 << 20)) + squeeze.flush()
    send(handler, 200, {"Content-Encoding": "gzip", "Content-Length": len(body)}, body)


def send_without_end(handler):
    send(handler, 206 if handler.headers["Range"] else 200, {"Transfer-Encoding": "chunked"})
    for _ in range(4000):  # 250 MB
        handler.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (send_gzip, "sent it encoded"),
        (send_without_end, "expected at most 1048576 bytes, the server sends more"),
        (lambda handler: send(handler, 200, {"Content-Length": 10**12}), "the server announces 1000000000000"),
    ],
)
def test_a_body_is_read_no_further_than_allowed(answer, message, monkeypatch):
    monkeypatch.setattr(limits, "JSON_BYTES", 1 << 20)
    with Server(answer) as url:
        assert message in refusal(lambda: read_manifest(url))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (send_gzip, "sent it encoded"),
        (send_without_end, "expected at most 100 bytes"),
        (lambda h: send(h, 200, {"Content-Length": 100}, bytes(100)), "does not answer requests for a range"),
        (
            lambda h: send(h, 206, {"Content-Length": 100, "Content-Range": "bytes 0-99/200"}, bytes(100)),
            "sent the range",
        ),
        (lambda h: send(h, 206, {"Content-Length": 101}, bytes(101)), "announces 101"),
        (lambda h: send(h, 206, {"Content-Length": 99}, bytes(99)), "expected 100 bytes, the server sent 99"),
    ],
)
def test_a_range_is_what_was_asked_for_or_an_error(answer, message):
    with Server(answer) as url, pytest.raises(OSError, match=message):
        RemoteFile(f"{url}/x.tar", RetryPolicy(timeout_s=20)).read(50, 150)


def test_a_pipe_at_a_file_url_is_refused(tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    assert "is a pipe, expected a file" in refusal(lambda: read_manifest(f"file://{tmp_path}"))
