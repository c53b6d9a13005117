"""What a shell completes: verbs, flags and files; and a single line where the extra is missing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from outthink.cli.main import main
from outthink.core.plugins import install_hint

COMPLETE = """
source ./script
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_shtab_outthink outthink "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def script(shell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """What `outthink --print-completion SHELL` prints."""
    pytest.importorskip("shtab")
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", shell])
    assert not end.value.code
    return capsys.readouterr().out


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("outthink as", {"ask"}),
        ("outthink ask --ver", {"--verifier"}),
        ("outthink ask --answer n", {"number"}),
        ("outthink keys re", {"revoke"}),
        ("outthink compare ro", {"rows.parquet"}),
        ("outthink compare rows.parquet --html ro", {"rows.parquet"}),
        ("outthink router eval rows.parquet --router ", {"folder", "rows.parquet", "script"}),
    ],
)
def test_bash_completes(capsys: pytest.CaptureFixture[str], tmp_path: Path, line: str, expected: set[str]) -> None:
    (tmp_path / "script").write_text(script("bash", capsys))
    (tmp_path / "rows.parquet").touch()
    (tmp_path / "folder").mkdir()
    words = line.split(" ")
    command = ["bash", "--norc", "-c", COMPLETE, "bash", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert set(done.stdout.split()) == expected, done.stderr


@pytest.mark.parametrize("shell", ["zsh", "tcsh", "fish", "powershell"])
def test_other_shells_get_a_script_that_knows_the_verbs(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    text = script(shell, capsys)
    assert "calibrate" in text
    assert "verifier" in text


def test_without_the_extra_one_line_names_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    with pytest.raises(SystemExit) as end:
        main(["--print-completion", "bash"])
    told = capsys.readouterr()
    assert (end.value.code, told.out, len(told.err.splitlines())) == (2, "", 1)
    assert install_hint("completion") in told.err
