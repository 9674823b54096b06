"""Open and close a training run: checks, lease of its folder, log, process group, data of its stages."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from hms_dist.config.load import to_dict
from hms_dist.core.environment import environment
from hms_dist.core.files import write_json
from hms_dist.core.logging import LOG, start_log
from hms_dist.train.data.run_data import RunData, open_run_data
from hms_dist.train.folder.owner import Ownership, owned
from hms_dist.train.folder.record import ENVIRONMENT_NAME, LOG_NAME, reported, write_forced_end, write_status
from hms_dist.train.folder.run_folder import clear_folder
from hms_dist.train.folder.stop import StopRequest, stop_with_launcher
from hms_dist.train.folder.trackers import check_trackers, start_trackers
from hms_dist.train.ranks.variables import check_variables
from hms_dist.train.ranks.world import World, launched_rank, launched_ranks, open_world
from hms_dist.train.settings import TrainConfig
from hms_dist.train.stages import check_folders, check_networks, open_stages


@dataclass(frozen=True)
class Session:
    """An open training run on one rank."""

    config: TrainConfig
    world: World
    ownership: Ownership
    stop: StopRequest
    stages: tuple[tuple[TrainConfig, RunData], ...]
    """Configuration and data of each unfinished stage, in order; a run without stages has one."""
    first_scale: dict[str, Any]
    """State of fp16's gradient scaler at the start of every stage; empty without a scaler."""


@contextmanager
def open_session(config: TrainConfig) -> Iterator[Session]:
    """Check a run, acquire the lease of its folder and join the process group; release both at the end.

    Every rank calls this. Raises UserError for user errors, before the process group starts wherever possible. Every
    exception, also one of the `with` block, is recorded in the run folder.
    """
    stop = StopRequest(config.out)
    stop_with_launcher(stop)
    _check(config)
    stages = open_stages(config)
    data = [open_run_data(stage) for stage in stages]
    is_main = launched_rank() == 0
    with owned(config.out, is_main=is_main) as ownership, stop:
        if is_main:
            clear_folder(config)
            stop.on_forced_end = partial(write_forced_end, config.out, ownership)
        start_log(launched_rank(), config.out / LOG_NAME if is_main else None)
        with reported(config.out, launched_rank()), ownership.guard():
            world = open_world(config.precision, config.timeout_s, trackers=config.trackers, out=config.out)
        try:
            # An error is recorded before this rank leaves the process group, which makes the other ranks fail.
            with world.shutdown(), reported(config.out, world.rank), ownership.guard():
                if is_main:
                    start_trackers(world.accelerator, config.trackers, config.out, to_dict(config))
                pairs = tuple(zip(stages, data, strict=True))
                yield Session(config, world, ownership, stop, pairs, world.scaler_state())
        finally:
            for stage_data in data:
                stage_data.close()


def begin_stage(session: Session, stage: TrainConfig) -> str:
    """Record the start of a stage in the run folder, and return the stage's name; empty for a run without stages."""
    config, world = session.config, session.world
    world.reset_scaler(session.first_scale)  # a stage does not depend on the one before
    if world.is_main:
        stage.out.mkdir(parents=True, exist_ok=True)
        for folder in {config.out, stage.out}:
            write_json(folder / ENVIRONMENT_NAME, environment())  # job scripts take it for the start of the run
        if stage.out != config.out:
            write_status(config.out, "running", stage=stage.out.name)
    if not config.stages:
        return ""
    name = stage.out.name if stage.out != config.out else config.stages[-1].name
    LOG.info("stage %s", name)
    return name


def _check(config: TrainConfig) -> None:
    """Check everything that needs neither the data nor the other ranks."""
    config.batching.check_world(launched_ranks())
    check_variables(config.precision)
    check_trackers(config.trackers)
    check_folders(config)
    check_networks(config)
