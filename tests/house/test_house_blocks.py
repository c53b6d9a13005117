"""Every block of commands in README and docs says whether it is run, and the script that runs them tells a failure."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import marked  # noqa: E402 - the path is set above
from marked import Block, Copy, blocks, pages  # noqa: E402

PAGES = pages()


def commands(page: str) -> list[Block]:
    """Blocks that are marked, or have to be: commands on all pages, Python in README too."""
    code = (*marked.COMMANDS, "python") if page == "README.md" else marked.COMMANDS
    return [block for block in blocks(page) if block.language in code]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_commands_is_marked(page: str) -> None:
    assert not [str(block) for block in commands(page) if not block.mark]


def test_readme_has_no_block_that_is_only_shown() -> None:
    assert {block.mark for block in commands("README.md")} == {"fast", "heavy"}


def test_the_first_block_builds_the_environment_of_all_others() -> None:
    first = next(block for page in PAGES for block in blocks(page) if block.runs)
    assert first.fast
    assert first.text.startswith("make demo")


def test_fast_blocks_fetch_nothing_and_need_no_port() -> None:
    fast = [block for page in PAGES for block in blocks(page) if block.fast]
    assert len(fast) >= 8
    assert not [str(block) for block in fast if "pip install" in block.text or "localhost" in block.text]


def test_marks_belong_to_the_block_right_behind_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = "<!-- fast -->\n```sh\na\n```\n\ntext\n\n```sh\nb\n```\n\n<!-- shown: needs luck -->\n```bash\nc\n```\n"
    (tmp_path / "page.md").write_text(page)
    monkeypatch.setattr(marked, "ROOT", tmp_path)
    assert [(block.line, block.mark, block.text, block.runs) for block in blocks("page.md")] == [
        (2, "fast", "a\n", True),
        (8, "", "b\n", False),
        (13, "shown: needs luck", "c\n", False),
    ]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A copy of the checkout with an environment that is this one."""
    made = Copy(tmp_path_factory.mktemp("copy"), fresh=True)
    (made.folder / ".venv/bin").mkdir(parents=True)
    (made.folder / ".venv/bin/python").symlink_to(sys.executable)
    return made


def ran(copy: Copy, text: str, language: str = "sh") -> tuple[int, str]:
    """Exit code and output of a block."""
    done = copy.run(Block("page.md", 1, language, "fast", text))
    return done.code, done.output


def test_a_copy_holds_what_git_knows(copy: Copy) -> None:
    assert (copy.folder / "README.md").read_text() == (ROOT / "README.md").read_text()
    assert not (copy.folder / ".git").exists()


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("true\n", 0),
        ("false\ntrue\n", 1),
        ("true\n(exit 4)\ntrue\n", 4),
        ("(exit 3)\ntrue\n", 0),
        ("no-such-command\ntrue\n", 127),
        ("cat\n", 0),
    ],
)
def test_a_block_fails_with_any_of_its_commands(copy: Copy, text: str, code: int) -> None:
    assert ran(copy, text)[0] == code


def test_python_blocks_may_await(copy: Copy) -> None:
    text = "import asyncio\n\nresult = await asyncio.sleep(0, 391)\nprint(result)\n"
    assert ran(copy, text, "python") == (0, "391\n")
    code, output = ran(copy, "raise ValueError('no')\n", "python")
    assert code == 1
    assert output.rstrip().endswith("ValueError: no")


def test_a_failure_is_told_with_what_it_printed(copy: Copy) -> None:
    line = marked.told(copy.run(Block("page.md", 7, "sh", "fast", "echo why\nfalse\n")))
    assert line.startswith("FAIL")
    assert "page.md:7  echo why" in line
    assert line.endswith("exit code 1\nwhy\n")


def test_what_runs_in_the_background_ends_with_its_page(copy: Copy) -> None:
    code, number = ran(copy, "sleep 600 & echo $!\n")
    process = Path("/proc") / number.strip()
    assert (code, process.exists()) == (0, True)
    copy.run(Block("other.md", 1, "sh", "fast", "true\n"))
    # Whoever adopts it may not have taken note of its end yet; then it is a zombie.
    assert not process.exists() or "State:\tZ" in (process / "status").read_text()
