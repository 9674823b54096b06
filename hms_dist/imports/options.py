"""Options of reading a recording, shared by the commands that take one."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from hms_dist.imports.montage import Reference
from hms_dist.imports.names import parse_map
from hms_dist.imports.signal import SignalOptions
from hms_dist.recordings.audio import is_audio


@dataclass(frozen=True, kw_only=True)
class ReadingOptions:
    """How the channels of EDF and other files are read."""

    map: str | None = None
    """Channels that rules do not find: "LABEL=ELECTRODE,...", such as "A1=T3,X5=Fp1-F7". None: no further ones."""
    reference: Reference = "as_recorded"
    """as_recorded, average (of the scalp) or linked_ears (needs A1 and A2)."""
    missing: Literal["fail", "nan"] = "fail"
    """Missing scalp electrodes: reject the file, or leave up to three empty."""
    unit: Literal["uV", "mV", "V"] | None = None
    """Unit of all channels. None: the one that each file states."""
    truncated: Literal["fail", "keep"] = "fail"
    """Files that end early: reject them, or read what they hold."""

    def __post_init__(self) -> None:
        parse_map(self.map)

    def check_signal(self, recording: Path) -> None:
        """Raise ValueError for an option other than the default with a recording of audio, which has none of them."""
        for option in fields(ReadingOptions):
            if is_audio(recording) and getattr(self, option.name) != option.default:
                raise ValueError(f"{option.name}: is for EEG, {recording.name} is audio; leave it out")

    @property
    def signal_options(self) -> SignalOptions:
        """The options that concern the channels."""
        return SignalOptions(mapped=parse_map(self.map), reference=self.reference, missing=self.missing, unit=self.unit)
