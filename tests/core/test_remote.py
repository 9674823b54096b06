"""Locations, retries, and errors of servers that deny access."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from hms_dist.cli import main
from hms_dist.core.errors import UserError
from hms_dist.core.remote import LONGEST_PAUSE_S, RetryPolicy, is_url, join, read_bytes
from hms_dist.shards.index import open_set
from hms_dist.shards.manifest import read_manifest


def test_folders_and_urls_are_distinguished():
    assert [is_url(text) for text in ("http://x/set", "s3://b/set", "set", "/a/b:c", "./a")] == [True, True] + [
        False
    ] * 3
    assert join("http://x/set/", "a.tar") == "http://x/set/a.tar"
    assert join("https://x/set/?sig=a/b%3D&se=1", "a.tar") == "https://x/set/a.tar?sig=a/b%3D&se=1"
    assert join("s3://x/is?it", "a.tar") == "s3://x/is?it/a.tar"
    assert join("set", "a.tar") == join(Path("set"), "a.tar") == Path("set/a.tar")


def test_pauses_grow_and_the_last_error_passes_on():
    errors, pauses = [], []

    def attempt():
        errors.append(OSError(len(errors)))
        raise errors[-1]

    with pytest.raises(OSError, match="10") as caught:
        RetryPolicy(num_retries=10).retried(attempt, pauses.append)
    assert caught.value is errors[-1]
    assert pauses == [min(0.1 * 2**number, LONGEST_PAUSE_S) for number in range(10)]


@pytest.mark.parametrize("final", [FileNotFoundError, PermissionError, ZeroDivisionError])
def test_what_waiting_does_not_fix_is_raised_at_once(final):
    pauses = []

    def attempt():
        raise final

    with pytest.raises(final):
        RetryPolicy().retried(attempt, pauses.append)
    assert not pauses


def test_a_success_ends_the_tries():
    answers = [OSError(), OSError(), "bytes"]

    def attempt():
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert RetryPolicy(num_retries=2).retried(attempt, lambda _: None) == "bytes"


def test_any_scheme_of_fsspec_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert read_bytes(f"file://{tmp_path}/file") == read_bytes(tmp_path / "file") == b"content"


class Gate:
    """A server that asks for a token in the query, and sends a page of a login to whom it does not know."""

    def __init__(self, folder):
        self.num_requests, gate = 0, self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):  # the library's name
                gate.num_requests += 1
                parts = urlsplit(self.path)
                token = parse_qs(parts.query).get("token", [""])[0]
                status = {"right": 200, "none": 401, "wrong": 403}.get(token, 200)
                content = b"<!DOCTYPE html><title>Sign in</title>"
                if token == "right":
                    content = (folder / parts.path.rpartition("/")[2]).read_bytes()
                    if "Range" in self.headers:
                        first, last = self.headers["Range"].removeprefix("bytes=").split("-")
                        status, content = 206, content[int(first) : int(last) + 1]
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/sets/one"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()


@pytest.fixture
def gate(shard_set):
    made = Gate(shard_set)
    yield made
    made.server.shutdown()
    made.server.server_close()


def test_a_set_behind_a_token_in_the_query(gate, shard_set):
    manifest, index = open_set(f"{gate.url}/?token=right")
    assert (manifest, len(index)) == (read_manifest(shard_set), manifest.num_samples)


@pytest.mark.parametrize(
    ("query", "advised"),
    [
        ("?token=none", r"HTTP 401 .*; the server refuses access: check the token"),
        ("?token=wrong", r"HTTP 403 .*; the server refuses access: check the token"),
        ("", r"the server sent a web page \(of a login, perhaps\): check the URL and the access to it"),
    ],
)
def test_what_a_server_sends_instead_of_a_set(gate, query, advised):
    with pytest.raises(UserError, match=advised):
        open_set(gate.url + query)
    assert gate.num_requests == 1  # such an answer is final


def test_commands_that_take_folders_only_reject_urls(capsys):
    assert main(["verify", "--shards", "https://host/set"]) == 2
    assert capsys.readouterr().err == (
        "hms-dist verify: --shards: expected a file or folder here, found the URL 'https://host/set'; copy it to this "
        "machine first\n"
    )
