"""Locations, and patience with servers: the schedule of retries without a server."""

from pathlib import Path

import pytest

from hms_dist.remote import LONGEST_PAUSE_S, Patience, is_url, join, read_bytes


def test_folders_and_urls_are_told_apart():
    assert [is_url(text) for text in ("http://x/set", "s3://b/set", "set", "/a/b:c", "./a")] == [True, True] + [
        False
    ] * 3
    assert join("http://x/set/", "a.tar") == "http://x/set/a.tar"
    assert join("set", "a.tar") == join(Path("set"), "a.tar") == Path("set/a.tar")


def test_pauses_grow_and_the_last_error_passes_on():
    errors, pauses = [], []

    def attempt():
        errors.append(OSError(len(errors)))
        raise errors[-1]

    with pytest.raises(OSError, match="10") as caught:
        Patience(num_retries=10).retried(attempt, pauses.append)
    assert caught.value is errors[-1]
    assert pauses == [min(0.1 * 2**number, LONGEST_PAUSE_S) for number in range(10)]


@pytest.mark.parametrize("final", [FileNotFoundError, PermissionError, ZeroDivisionError])
def test_what_waiting_does_not_mend_is_raised_at_once(final):
    pauses = []

    def attempt():
        raise final

    with pytest.raises(final):
        Patience().retried(attempt, pauses.append)
    assert not pauses


def test_a_success_ends_the_tries():
    answers = [OSError(), OSError(), "bytes"]

    def attempt():
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    assert Patience(num_retries=2).retried(attempt, lambda _: None) == "bytes"


def test_any_scheme_of_fsspec_is_read(tmp_path):
    (tmp_path / "file").write_bytes(b"content")
    assert read_bytes(f"file://{tmp_path}/file") == read_bytes(tmp_path / "file") == b"content"
