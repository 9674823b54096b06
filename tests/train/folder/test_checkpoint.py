"""Checkpoints: a resume is no interruption, and nothing half-written or damaged is ever loaded."""

import json
import logging
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from hms_dist.core.errors import UserError
from hms_dist.core.files import sha256_of
from hms_dist.model.by_rows import convert
from hms_dist.model.group_norms import GroupBatchNorm, GroupNorms
from hms_dist.model.pass_rows import PassRows, draw_words, whole_groups
from hms_dist.train.folder.checkpoint import load_latest, save_checkpoint
from hms_dist.train.optimise.ema import Ema, EmaConfig
from hms_dist.train.optimise.optim import OptimConfig, build_optimizer

FILES = ("model.safetensors", "optimizer.pt", "state.json", "hashes.json")


def make(seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(seed)
    layers = (nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Flatten(), nn.Linear(144, 6))
    model = nn.Sequential(*layers)
    convert(model, PassRows(torch.device("cpu")))
    return model, build_optimizer(OptimConfig(lr=0.01), model)


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: range) -> None:
    """Steps of two groups of three rows, whose pictures and draws depend on nothing but the step."""
    norm = model[1]
    assert isinstance(norm, GroupBatchNorm)
    norms = GroupNorms(model, norm.rows)
    for step in steps:
        norm.rows.begin(whole_groups(2, 3), draw_words(1, 0, step, range(6)))
        norms.begin_step()
        norms.begin_pass()
        pictures = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(step))
        model(pictures).square().sum().backward()
        norms.after_pass()
        optimizer.step()
        optimizer.zero_grad()
        norms.end_step(2)


def save(folder: Path, step: int, num_kept: int = 9) -> None:
    model, optimizer = make()
    train(model, optimizer, range(step))
    save_checkpoint(folder, step, model=model, optimizer=optimizer, state={"step": step}, num_kept=num_kept)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_stop_and_resume_is_bit_for_bit_no_stop(tmp_path: Path) -> None:
    model, optimizer = make()
    train(model, optimizer, range(3))
    state = {"epoch": 1, "step": 3, "history": [0.1 + 0.2], "best": None}
    path = save_checkpoint(tmp_path, 3, model=model, optimizer=optimizer, state=state)
    assert path.name == "step-00000003"
    assert (tmp_path / "latest").read_text() == "step-00000003\n"
    train(model, optimizer, range(3, 7))
    again, its_optimizer = make(seed=9)
    checkpoint = load_latest(tmp_path)
    assert checkpoint.state == state
    checkpoint.restore(again, its_optimizer)
    train(again, its_optimizer, range(3, 7))
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(its_optimizer.state_dict(), optimizer.state_dict(), rtol=0, atol=0)


def test_the_average_is_saved_and_resumes_from_where_it_was(tmp_path: Path) -> None:
    model, optimizer = make()
    ema = Ema(EmaConfig(decay=0.99, warmup=True), model)
    for step in range(4):
        train(model, optimizer, range(step, step + 1))
        ema.update()
    save_checkpoint(tmp_path, 4, model=model, optimizer=optimizer, state={}, ema=ema)
    again, its_optimizer = make(seed=9)
    its_ema = Ema(ema.config, again)
    load_latest(tmp_path).restore(again, its_optimizer, ema=its_ema)
    assert its_ema.num_updates == 4
    for net, average in ((model, ema), (again, its_ema)):
        with torch.no_grad():
            net[0].weight.mul_(2)
        average.update()
    torch.testing.assert_close(its_ema.tensors, ema.tensors, rtol=0, atol=0)


def test_a_checkpoint_without_an_average_is_refused_where_one_is_kept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    model, optimizer = make()
    with pytest.raises(UserError, match=r"step-00000001: saved without an average of the weights; resume with the"):
        load_latest(tmp_path).restore(model, optimizer, ema=Ema(EmaConfig(decay=0.5), model))


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 10):
        save(tmp_path, step, num_kept=2)
    assert names(tmp_path) == ["latest", "step-00000003", "step-00000010"]


def test_saving_a_step_again_replaces_it_and_what_came_after(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save(tmp_path, step)
    model, optimizer = make(seed=4)
    save_checkpoint(tmp_path, 2, model=model, optimizer=optimizer, state={"step": 2, "again": True})
    assert names(tmp_path) == ["latest", "step-00000001", "step-00000002"]
    checkpoint = load_latest(tmp_path)
    assert checkpoint.state == {"step": 2, "again": True}
    other, its_optimizer = make(seed=5)
    checkpoint.restore(other, its_optimizer)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


FAULTS: dict[str, Callable[[Path], None]] = {
    "flipped bit": flip_a_bit,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-7]) and None,  # type: ignore[func-returns-value]
    "empty": lambda path: path.write_bytes(b"") and None,  # type: ignore[func-returns-value]
    "missing": Path.unlink,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_checkpoint_is_passed_over(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, fault: str
) -> None:
    for step in (4, 5):
        save(tmp_path, step)
    FAULTS[fault](tmp_path / "step-00000005" / name)
    with caplog.at_level(logging.WARNING):
        assert load_latest(tmp_path).state == {"step": 4}
    assert "step-00000005" in caplog.text
    assert "falling back to the checkpoint before" in caplog.text
    if not (name == "hashes.json" and fault == "flipped bit"):  # then another file or its hash is at odds
        assert f"step-00000005/{name}" in caplog.text


@pytest.mark.parametrize("name", FILES[:3])
def test_a_file_without_a_hash_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    for step in (4, 5):
        save(tmp_path, step)
    path = tmp_path / "step-00000005/hashes.json"
    path.write_text(json.dumps({key: value for key, value in json.loads(path.read_text()).items() if key != name}))
    with caplog.at_level(logging.WARNING):
        assert load_latest(tmp_path).state == {"step": 4}
    assert f"{path}: no hash of {name}; falling back to the checkpoint before" in caplog.text


def test_all_damaged_names_the_files(tmp_path: Path) -> None:
    for step in (4, 5):
        save(tmp_path, step)
    flip_a_bit(tmp_path / "step-00000004" / "optimizer.pt")
    (tmp_path / "step-00000005" / "hashes.json").unlink()
    with pytest.raises(UserError) as raised:
        load_latest(tmp_path)
    assert str(raised.value) == (
        f"{tmp_path}: every checkpoint is damaged ({tmp_path}/step-00000005/hashes.json: No such file or directory; "
        f"{tmp_path}/step-00000004/optimizer.pt: its SHA-256 is not the one in hashes.json); restore one from a copy, "
        "or start again in another run folder"
    )


@pytest.mark.parametrize("exists", [False, True])
def test_no_checkpoint(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "checkpoints"
    if exists:
        folder.mkdir()
    with pytest.raises(UserError, match=r"no checkpoint to resume from, expected a folder step-<8 digits>; check"):
        load_latest(folder)


def test_a_kill_while_writing_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 4)
    shutil.copytree(tmp_path / "step-00000004", tmp_path / ".step-00000005.new")
    (tmp_path / ".step-00000005.new" / "hashes.json").unlink()
    assert load_latest(tmp_path).state == {"step": 4}
    save(tmp_path, 6)
    assert names(tmp_path) == ["latest", "step-00000004", "step-00000006"]


def test_a_failure_while_writing_leaves_the_one_before(tmp_path: Path) -> None:
    save(tmp_path, 4)
    model, optimizer = make()
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(tmp_path, 5, model=model, optimizer=optimizer, state={"loss": float("nan")})
    assert names(tmp_path) == ["latest", "step-00000004"]


@pytest.mark.parametrize("limit", [20_000, 300_000])
def test_what_the_disk_refuses_is_reported_in_its_words(tmp_path: Path, limit: int) -> None:
    """A full disk is an OSError, which ends in one line; here a limit of file sizes, that of the weights or of the
    optimiser."""
    model = nn.Linear(400, 100)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 400)).sum().backward()
    optimizer.step()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(tmp_path, 1, model=model, optimizer=optimizer, state={})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.glob("step-*"))


def test_a_kill_before_latest_moved_continues_from_where_it_points(tmp_path: Path) -> None:
    for step in (4, 5):
        save(tmp_path, step)
    (tmp_path / "latest").write_text("step-00000004\n")
    assert load_latest(tmp_path).state == {"step": 4}
    for content in ("", "\x00\xff", "step-000"):
        (tmp_path / "latest").write_text(content)
        assert load_latest(tmp_path).state["step"] in (4, 5)
    (tmp_path / "latest").unlink()
    assert load_latest(tmp_path).state == {"step": 5}


SAVER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_checkpoint import make, save_checkpoint
model, optimizer = make()
for step in range(1, 10**6):
    for value in model.state_dict().values():
        value.fill_(step)
    target = 1 + step % 5
    save_checkpoint(Path(sys.argv[1]), target, model=model, optimizer=optimizer, state={"value": step}, num_kept=3)
    save_checkpoint(Path(sys.argv[1]), target, model=model, optimizer=optimizer, state={"value": step}, num_kept=3)
    if step == 1:
        print("ready", flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 0)
    seen = set()
    for delay in (0.11, 0.23, 0.47):
        here = str(Path(__file__).parent)
        process = subprocess.Popen([sys.executable, "-c", SAVER, str(tmp_path), here], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        checkpoint = load_latest(tmp_path)
        model, optimizer = make()
        checkpoint.restore(model, optimizer)
        if "value" in checkpoint.state:
            seen.add(checkpoint.state["value"])
            assert all(bool((value == checkpoint.state["value"]).all()) for value in model.state_dict().values())
    assert seen, "no run was killed after its first checkpoint"


def test_the_gradient_scaler_comes_back(tmp_path: Path) -> None:
    model, optimizer = make()
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.ones(()))
    scaler.update(77.5)
    save_checkpoint(tmp_path, 1, model=model, optimizer=optimizer, state={}, scaler=scaler)
    other = torch.amp.GradScaler("cpu")
    load_latest(tmp_path).restore(model, optimizer, other)
    assert other.get_scale() == 77.5
    with pytest.raises(UserError, match=r"optimizer\.pt: saved with a gradient scaler; resume with the same mixed"):
        load_latest(tmp_path).restore(model, optimizer)


def test_another_model_or_optimizer_is_refused(tmp_path: Path) -> None:
    save(tmp_path, 1)
    model, optimizer = make()
    with pytest.raises(
        UserError, match=r"model\.safetensors: these weights do not fit Linear: 2 missing \(bias, weight\)"
    ):
        load_latest(tmp_path).restore(nn.Linear(2, 2), optimizer)
    two_groups = torch.optim.AdamW([{"params": layer.parameters()} for layer in (model[0], model[1])])
    with pytest.raises(UserError, match=r"optimizer\.pt: does not fit this run's optimiser \(.*\); resume with the"):
        load_latest(tmp_path).restore(model, two_groups)


def test_no_pickle_is_run(tmp_path: Path) -> None:
    save(tmp_path, 1)
    folder, marker = tmp_path / "step-00000001", tmp_path / "run"
    torch.save({"optimizer": Trojan(marker), "scaler": None}, folder / "optimizer.pt")
    hashes = json.loads((folder / "hashes.json").read_text())
    hashes["optimizer.pt"] = sha256_of(folder / "optimizer.pt")
    (folder / "hashes.json").write_text(json.dumps(hashes))
    with pytest.raises(UserError, match=r"optimizer\.pt: does not fit this run's optimiser"):
        load_latest(tmp_path).restore(*make())
    assert not marker.exists()


class Trojan:
    """Pickles as a call that creates the file `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.marker,))
