"""Which rank records the end of a run when ranks fail with errors of their own, by a lost peer, or both."""

import json
import re

import pytest
import torch

from hms_dist.core.errors import JobError, UserError
from hms_dist.train.folder import record
from hms_dist.train.folder.owner import LEASE_NAME, owned
from hms_dist.train.folder.record import FAULT_NAME, is_lost_peer, reported, write_forced_end, write_status

CLOSED = RuntimeError(
    "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]"
)
RESET = RuntimeError("[/x/gloo/gloo/transport/tcp/pair.cc:537] Read error [10.0.0.1]:1: Connection reset by peer. ...")
LATE = RuntimeError("[/x/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 6000ms for recv operation")
NCCL = torch.distributed.DistBackendError("NCCL communicator was aborted on rank 0.")
STORE = torch.distributed.DistStoreError("wait timeout after 60000ms, keys: /default_pg/0//cpu//0/0")
OUT_OF_MEMORY = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
OF_ITS_OWN = [OUT_OF_MEMORY, OSError(5, "Input/output error"), RuntimeError("sizes do not match"), KeyError("x")]


def fail(folder, rank, error):
    with pytest.raises(type(error), match=re.escape(str(error))), reported(folder, rank):
        raise error


def status(folder):
    found = json.loads((folder / "status.json").read_text())
    return found["state"], found["exit_code"], found["message"]


@pytest.mark.parametrize("error", [CLOSED, RESET, LATE, NCCL, STORE], ids=str)
def test_a_lost_peer_is_written_down_by_the_main_rank_alone_and_is_no_fault(tmp_path, error):
    assert is_lost_peer(error)
    write_status(tmp_path, "running")
    fail(tmp_path, 1, error)
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"
    fail(tmp_path, 0, error)
    assert status(tmp_path)[:2] == ("failed", 1)
    assert str(error) in status(tmp_path)[2]
    assert not (tmp_path / FAULT_NAME).exists(), "a job that lost a node is requeued"


@pytest.mark.parametrize("error", OF_ITS_OWN, ids=repr)
@pytest.mark.parametrize("rank", [0, 3])
def test_an_error_of_a_rank_is_recorded_as_its_own_and_a_fault(tmp_path, rank, error):
    assert not is_lost_peer(error)
    fail(tmp_path, rank, error)
    assert (tmp_path / FAULT_NAME).exists()
    printed = status(tmp_path)
    assert printed[:2] == ("failed", 1)
    assert printed[2].startswith("rank 3: ") == (rank == 3)
    assert type(error).__name__ in printed[2]
    assert str(error) in printed[2]
    for peer, secondary in ((0, CLOSED), (1, NCCL), (2, OUT_OF_MEMORY)):
        fail(tmp_path, peer, secondary)
    write_status(tmp_path, "running")
    assert status(tmp_path) == printed


def test_an_error_of_a_rank_while_the_main_one_writes_is_kept(tmp_path, monkeypatch):
    """A rank fails between the main rank's check for a fault and its write of the status."""
    real = record.write_json

    def write_json(path, value):
        if value["state"] == "running":
            fail(tmp_path, 3, OUT_OF_MEMORY)
        real(path, value)

    monkeypatch.setattr(record, "write_json", write_json)
    write_status(tmp_path, "running")
    assert status(tmp_path)[:2] == ("failed", 1)
    assert "rank 3: torch.OutOfMemoryError" in status(tmp_path)[2]


@pytest.mark.parametrize(("kind", "state", "code"), [(UserError, "refused", 2), (JobError, "failed", 1)])
def test_an_error_of_all_ranks_is_recorded_without_a_number(tmp_path, kind, state, code):
    for rank in (1, 0, 2):
        with pytest.raises(kind), reported(tmp_path, rank):
            raise kind("the loss is nan")
    assert status(tmp_path) == (state, code, "the loss is nan")


def test_a_process_that_lost_the_folder_writes_no_forced_end(tmp_path):
    with owned(tmp_path, is_main=True) as ownership:
        write_status(tmp_path, "running")
        path = tmp_path / LEASE_NAME
        path.write_text(json.dumps({**json.loads(path.read_text()), "nonce": "another"}))
        write_forced_end(tmp_path, ownership, "the launcher is gone")
    assert json.loads((tmp_path / "status.json").read_text())["state"] == "running"
