"""`hms-dist completion`: bash completes commands, options, values, recipes and files by the printed script."""

import shutil
import subprocess
from contextlib import redirect_stdout

import pytest

from hms_dist.cli import main
from hms_dist.commands.table import COMMANDS
from hms_dist.config.recipes import names

TRY = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
function=$(complete -p hms-dist | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$function hms-dist "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "hms-dist.bash"
    with path.open("w") as file, redirect_stdout(file):
        assert main(["completion", "bash"]) == 0
    return path


@pytest.fixture
def completed(script, tmp_path):
    """Returns the completions that bash offers for words, the last of which is incomplete."""

    def words(*given: str) -> set[str]:
        command = ["bash", "-c", TRY, "bash", script, "hms-dist", *given]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return {line.strip() for line in done.stdout.splitlines()} - {""}

    return words


def test_commands_and_options(completed):
    assert completed("") >= set(COMMANDS)
    assert completed("pre") == {"predict"}
    assert completed("train", "--optim.l") == {"--optim.lr"}
    assert completed("score", "--l") == {"--labels", "--level"}


def test_values_recipes_and_files(completed, tmp_path):
    (tmp_path / "public_mine.yaml").touch()
    assert completed("train", "--precision", "f") == {"fp16", "float32", "float64"}
    assert completed("verify", "--repair", "t") == {"true"}
    recipes = {name for name in names("train") if name.startswith("public")}
    assert completed("train", "--config", "public") == {*recipes, "public_mine.yaml"}
    assert completed("predict", "--run", str(tmp_path / "pub")) == {str(tmp_path / "public_mine.yaml")}


def test_zsh_accepts_its_script(tmp_path, capsys):
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh")
    assert main(["completion", "zsh"]) == 0
    path = tmp_path / "_hms-dist"
    path.write_text(capsys.readouterr().out)
    subprocess.run(["zsh", "-n", path], check=True)
    assert path.read_text().startswith("#compdef hms-dist")
