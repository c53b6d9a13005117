"""The configuration: which word wins, what each wrong one is told, and that no secret is shown."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp")

from outthink.core.errors import BadInput
from outthink.economics.price import Price
from outthink.economics.tariff import Energy
from outthink.http.errors import masked_url
from outthink.serving.config import Config, read_config, read_store
from outthink.serving.config.config import SECTIONS, described, effective, example
from outthink.serving.config.sections import BackendConfig, Setting, keys_of

BACKEND = '[[serve.backends]]\nurl = "http://192.0.2.1:8000/v1"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "outthink.toml"


def read(file: Path, text: str, environ: dict[str, str] | None = None, **more: Any) -> Config:
    file.write_text(text)
    return read_config(file, environ=environ or {}, **more)


def flag(**values: str) -> dict[str, Setting]:
    return {name.replace("__", "."): Setting(value, f"--{name}", "flag") for name, value in values.items()}


def test_flags_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    text = (
        BACKEND + "[serve.listen]\nport = 1\nhost = '::1'\n[serve.admission]\nqueue = 1\nper_key = 1\nconcurrency = 1\n"
    )
    environ = {"OUTTHINK_SERVE_LISTEN_PORT": "2", "OUTTHINK_SERVE_ADMISSION_QUEUE": "2", "UNRELATED": "x"}
    config = read(file, text, environ, settings=["admission.queue=3", "listen.port=4"], flags=flag(listen__port="3"))
    assert (config.listen.port, config.listen.host) == (3, "::1")
    assert (config.admission.queue, config.admission.per_key, config.admission.queue_seconds) == (3, 1, 30.0)
    assert config.origins["listen.port"] == "--listen__port"
    assert config.origins["admission.queue"] == "--set admission.queue"
    assert config.origins["admission.per_key"] == f"{file}: serve.admission.per_key"
    assert "admission.queue_seconds" not in config.origins


def test_backends_on_one_line_replace_those_of_the_file(file: Path) -> None:
    environ = {"OUTTHINK_MODEL": "http://192.0.2.9/v1"}
    assert [backend.url for backend in read(file, BACKEND, environ).backends] == ["http://192.0.2.1:8000/v1"]
    environ["OUTTHINK_SERVE_BACKENDS"] = "http://192.0.2.2/v1, embedded"
    assert [backend.url for backend in read(file, BACKEND, environ).backends] == ["http://192.0.2.2/v1", "embedded"]
    environ["TOY_KEY"] = "sesame"
    config = read(file, BACKEND, environ, models="http://192.0.2.3/v1", api_key_env="TOY_KEY")
    assert [(backend.url, backend.secret()) for backend in config.backends] == [("http://192.0.2.3/v1", "sesame")]


def test_the_environment_alone_is_enough(file: Path) -> None:
    assert read_config(environ={"OUTTHINK_MODEL": "embedded"}).backends[0].local
    file.write_text(BACKEND)
    assert read_config(environ={"OUTTHINK_SERVE_CONFIG": str(file)}).backends[0].url == "http://192.0.2.1:8000/v1"
    assert read_config(environ={"OUTTHINK_MODEL": "embedded", "OUTTHINK_SERVE_LEDGER": "memory:"}).ledger.url


def test_the_ledger_of_a_file_can_be_read_alone(file: Path) -> None:
    file.write_text("[serve.ledger]\nurl = 'sqlite:///a.db'\n")
    store, configuration = read_store(file, {})
    assert (store.resolved(), configuration.file) == ("sqlite:///a.db", file)
    assert read_store(file, {"OUTTHINK_SERVE_LEDGER": "memory:"})[0].resolved() == "memory:"


def test_what_kubernetes_sets_for_a_service_of_our_name_is_not_ours() -> None:
    theirs = {"OUTTHINK_SERVE_SERVICE_HOST": "192.0.2.1", "OUTTHINK_SERVE_PORT_80_TCP": "tcp://192.0.2.1:80"}
    assert read_config(models="embedded", environ=theirs).listen.port == 8000


def test_types_and_places_of_paths(file: Path) -> None:
    text = (
        BACKEND
        + 'models = ["a", "b"]\nlimit = 8\n[serve.pool]\ninterval = 2\naffinity = false\n'
        + '[serve.policy]\nfile = "p.json"\n'
    )
    config = read(file, text)
    assert (config.backends[0].models, config.backends[0].limit) == (("a", "b"), 8)
    assert (config.pool.interval, config.pool.affinity) == (2.0, False)
    assert config.policy.file == file.parent / "p.json"
    environ = {"OUTTHINK_SERVE_POOL_AFFINITY": "no", "OUTTHINK_SERVE_ADMISSION_PER_KEY": "none"}
    config = read(file, text + "[serve.admission]\nper_key = 3\n", {**environ, "OUTTHINK_SERVE_POLICY_FILE": "q.json"})
    assert (config.pool.affinity, config.admission.per_key, config.policy.file) == (False, None, Path("q.json"))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[listen\n", ("outthink.toml", "line 3")),
        ("[[serve.listen]]\nport = 1\n", ("toml: serve.listen", "[serve.listen]")),
        ("[listen]\nport = 1\n", ("toml: listen", "write [serve.listen]")),
        ("backends.url = 'x'\n", ("toml: serve.backends[0]", "'backends'")),
        ("[lisen]\nport = 1\n", ("'lisen'", "did you mean [serve.listen]?")),
        ("[serve.lisen]\nport = 1\n", ("toml: serve: 'lisen'", "did you mean listen?")),
        ("[colour]\n", ("'colour'", "use one of")),
        ("[serve.listen]\nprot = 1\n", ("toml: serve.listen: 'prot'", "did you mean port")),
        ("[serve.listen]\nport = '80'\n", ("toml: serve.listen.port: '80'", "write a whole number")),
        ("[serve.listen]\nport = true\n", ("toml: serve.listen.port: True", "write a whole number")),
        ("[serve.listen]\nport = 1.5\n", ("toml: serve.listen.port: 1.5", "write a whole number")),
        (f"[serve.pool]\ninterval = 1{'0' * 400}\n", ("toml: serve.pool.interval: 1000", "write a number")),
        ("[serve.limits]\nbackend_seconds = 1e300\n", ("toml: serve.limits.backend_seconds: 1e+300", "at most 86400")),
        ("[serve.logs]\nfile = '~no such user/x'\n", ("toml: serve.logs.file: '~no such user/x'", "whole path")),
        ("[serve.ledger]\nurl = 'http://[x'\n", ("toml: serve.ledger.url: 'http://[x'", "sqlite:///PATH")),
        ('[serve.ledger]\nurl_file = "x\\u0000"\n', ("toml: serve.ledger.url_file", "in quotes")),
        ("[serve.listen]\nport = 65536\n", ("toml: serve.listen.port: 65536", "0 to 65535")),
        ("[serve.listen]\nhost = 3\n", ("toml: serve.listen.host: 3", "in quotes")),
        ("[serve.listen]\nhost = ''\n", ("toml: serve.listen.host: ''", "in quotes")),
        ("[serve.pool]\ninterval = nan\n", ("toml: serve.pool.interval: nan", "write a number")),
        ("[serve.pool]\ninterval = -1\n", ("toml: serve.pool.interval: -1", "above 0")),
        ("[serve.pool]\naffinity = 1\n", ("toml: serve.pool.affinity: 1", "true or false")),
        ("[serve.limits]\nsamples = 0\n", ("toml: serve.limits.samples: 0", "1 or more")),
        ("[serve.limits]\nbackend_seconds = -1\n", ("toml: serve.limits.backend_seconds", "above 0")),
        ("[serve.admission]\nqueue = -1\n", ("toml: serve.admission.queue: -1", "0 or more")),
        ("[serve.policy]\nshare = 2\n", ("toml: serve.policy.share: 2", "0 to 1")),
        ("[serve.policy]\nshare = 0.5\n", ("toml: serve.policy.share: 0.5", "shadow")),
        ("[serve.ledger]\nurl = 'mysql://x'\n", ("toml: serve.ledger.url: 'mysql://x'", "sqlite:///PATH")),
        ("[serve.ledger]\nurl = 'postgresql://me:sesame@h/d'\n", ("toml: serve.ledger.url", "url_env")),
        ("[serve.ledger]\nurl = 'memory:'\nurl_env = 'X'\n", ("toml: serve.ledger.url_env: 'X'", "one of the two")),
        ("[serve.logs]\nlevel = 'loud'\n", ("toml: serve.logs.level: 'loud'", "info")),
        ("[[serve.backends]]\nweight = 1\n", ("backends[1].url", "missing")),
        ("[[serve.backends]]\nurl = 'x'\n", ("toml: serve.backends[1].url: 'x'", "http://")),
        ("[[serve.backends]]\nurl = 'http://me:sesame@h/v1'\n", ("toml: serve.backends[1].url", "key_env")),
        ("[[serve.backends]]\nurl = 'http://h/v1'\nkey = 'sesame'\n", ("toml: serve.backends[1].key", "key_env")),
        ("[[serve.backends]]\nurl = 'http://h/v1'\nweight = 0\n", ("toml: serve.backends[1].weight: 0", "above 0")),
        (
            "[[serve.backends]]\nurl = 'http://h/v1'\nmodels = 'm'\n",
            ("toml: serve.backends[1].models: 'm'", '["one", "two"]'),
        ),
        (
            "[[serve.backends]]\nurl = 'http://h/v1'\nkey_env = 'A'\nkey_file = 'b'\n",
            ("toml: serve.backends[1].key_file", "one of"),
        ),
        (
            "[[serve.backends]]\nurl = 'http://h/v1'\nimage_tokens = 0\n",
            ("toml: serve.backends[1].image_tokens: 0", "above 0"),
        ),
        ("[[serve.backends]]\nurl = 'http://h/v1'\nimage_tokens = 1.5\n", ("backends[1].image_tokens", "whole number")),
        (
            "[[serve.backends]]\nurl = 'http://h/v1'\nallow_fields = 'a'\n",
            ("backends[1].allow_fields", '["one", "two"]'),
        ),
        (
            "[[serve.backends]]\nurl = 'http://h/v1'\nlength_name = 'n'\n",
            ("backends[1].length_name: 'n'", "max_tokens or"),
        ),
    ],
)
def test_every_wrong_word_is_one_line_that_names_its_place(file: Path, text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as wrong:
        read(file, BACKEND + text)
    line = str(wrong.value)
    assert "\n" not in line
    assert "sesame" not in line
    assert all(part in line for part in parts), line


@pytest.mark.parametrize(
    ("environ", "settings", "parts"),
    [
        (
            {"OUTTHINK_SERVE_LISTEN_PROT": "1"},
            [],
            ("OUTTHINK_SERVE_LISTEN_PROT", "did you mean OUTTHINK_SERVE_LISTEN_PORT"),
        ),
        ({"OUTTHINK_SERVE_LISTEN_PORT": "x"}, [], ("OUTTHINK_SERVE_LISTEN_PORT: 'x'", "whole number")),
        ({"OUTTHINK_SERVE_POOL_AFFINITY": "maybe"}, [], ("OUTTHINK_SERVE_POOL_AFFINITY", "true or false")),
        ({"OUTTHINK_SERVE_CONFIG": "/none"}, [], ("/none", "cannot be read")),
        ({}, ["listen.port"], ("--set", "SECTION.KEY=VALUE")),
        ({}, ["lisen.port=1"], ("'lisen'", "did you mean listen")),
        ({}, ["listen.prot=1"], ("'prot'", "did you mean port")),
        ({}, ["listen.port=-1"], ("--set listen.port: -1", "0 to 65535")),
        ({}, ["ledger.url=mysql://me:sesame@h/d"], ("--set ledger.url", "sqlite")),
    ],
)
def test_variables_and_flags_are_named_as_well(
    environ: dict[str, str], settings: list[str], parts: tuple[str, ...]
) -> None:
    with pytest.raises(BadInput) as wrong:
        read_config(models="embedded", environ=environ, settings=settings)
    line = str(wrong.value)
    assert "sesame" not in line
    assert all(part in line for part in parts), line


def test_prices_are_stated_by_backend_or_for_those_of_the_line(file: Path) -> None:
    received = read(file, BACKEND + 'price = "0.5,1.5"\nenergy = "0.01,0.3"\n').backends[0].settings()
    assert (received.price, received.energy) == (Price(0.5, 1.5), Energy(0.01, 0.3))
    line = read_config(models="http://h/v1,embedded", price="1,2,0.5", energy="1,2", environ={}).backends
    assert {(item.settings().price, item.settings().energy) for item in line} == {(Price(1, 2, 0.5), Energy(1, 2))}
    with pytest.raises(BadInput, match=re.escape(f"{file}: serve.backends[0].price: 'dear' does not hold two numbers")):
        read(file, BACKEND + 'price = "dear"\n')
    with pytest.raises(BadInput, match=r"--price: '1,2' goes with --model"):
        read(file, BACKEND, price="1,2")
    shown = effective(read(file, BACKEND + 'price = "0.5,1.5"\n'))
    assert tomllib.loads(shown)["serve"]["backends"][0]["price"] == "0.5,1.5"


def test_no_backend_at_all_is_refused(file: Path) -> None:
    with pytest.raises(BadInput, match="--model URL"):
        read(file, "[serve.listen]\nport = 1\n")


def test_secrets_are_read_by_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", " sesame\n")
    (tmp_path / "key").write_text("open\n")
    assert BackendConfig(url="http://h/v1", key_env="TOY_KEY").secret() == "sesame"
    assert BackendConfig(url="http://h/v1", key_file=tmp_path / "key").secret() == "open"
    assert BackendConfig(url="http://h/v1").secret() is None
    (tmp_path / "two").write_text("sesame\nsesame\n")
    (tmp_path / "none").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for name, part in (("two", "one line"), ("none", "empty"), ("binary", "no text"), ("missing", "cannot be read")):
        with pytest.raises(BadInput, match=part) as wrong:
            BackendConfig(url="http://h/v1", key_file=tmp_path / name).secret()
        assert "sesame" not in str(wrong.value)
    with pytest.raises(BadInput, match="NOBODY_SETS_THIS"):
        BackendConfig(url="http://h/v1", key_env="NOBODY_SETS_THIS").secret()


def test_what_is_printed_reads_back_and_holds_no_secret(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOY_KEY", "sesame")
    text = BACKEND + "key_env = 'TOY_KEY'\nweight = 2\n[serve.pool]\nslack = 3\n[serve.policy]\nfile = 'p.json'\n"
    config = read(file, text, {"OUTTHINK_SERVE_LEDGER_URL": "postgresql://me:sesame@h/d?sslpassword=sesame"})
    shown = effective(config)
    assert "sesame" not in shown + repr(
        read_config(models="http://h/v1", api_key_env="TOY_KEY", environ={"TOY_KEY": "sesame"})
    )
    assert "postgresql://me:***@h/d" in shown
    values = tomllib.loads(shown)
    assert values["serve"]["backends"] == [{"url": "http://192.0.2.1:8000/v1", "key_env": "TOY_KEY", "weight": 2.0}]
    again = file.with_name("again.toml")
    again.write_text(shown.replace("postgresql://me:***@h/d?***", "memory:"))
    assert read_config(again, environ={}).pool == config.pool


def test_the_example_explains_every_key_and_holds_the_defaults(file: Path) -> None:
    lines = [line for line in example().splitlines() if not line.endswith(" =")]
    file.write_text("\n".join(re.sub(r"^#(?=\w)", "", line) for line in lines))
    config = read_config(file, environ={})
    assert config == Config(backends=(BackendConfig(url="http://127.0.0.1:8001/v1"),))
    for name, section in {**SECTIONS, "backends": BackendConfig}.items():
        _, keys = described(section)
        assert set(keys_of(section)) <= set(keys), name


def test_a_file_of_the_former_version_reads_the_same(file: Path) -> None:
    text = "[serve.backends.gpu]\nurl = 'http://h/v1'\n[serve.pool]\nslack = 3\n[serve.policy]\nfile = 'p.json'\n"
    config = read(file, text)
    former = read(file, text.replace("[serve.", "["))
    assert former == config
    assert (former.former, config.former) == (True, False)
    assert former.backends[0].setting == "[backends.gpu]"
    with pytest.raises(BadInput, match=re.escape(f"{file}: pool.slack: -1 is no count")):
        read(file, "[pool]\nslack = -1\n")
    assert read(file, effective(former)) == config, "what is printed is the new form"


def test_backends_are_named_by_alias_alone_or_in_one_line(file: Path) -> None:
    text = """
        [models.fast]
        url = "http://h/v1"
        name = "m"
        price = "1,2"
        parameters = 7
        api_key_env = "TOY_KEY"
        [models.own]
        url = "embedded"
        context = 512
        [serve.backends.gpu]
        url = "fast"
        weight = 2
        price = "3,4"
    """
    environ = {"TOY_KEY": "sesame"}
    (gpu,) = read(file, text, environ).backends
    assert (gpu.url, gpu.models, gpu.price, gpu.weight, gpu.alias) == ("http://h/v1", ("m",), "3,4", 2.0, "fast")
    assert (gpu.settings().parameters, gpu.secret(environ)) == (7, "sesame")
    fast, own = read(file, text, environ, models="fast, own").backends
    assert (fast.url, fast.models, fast.price, fast.parameters, fast.key) == ("http://h/v1", ("m",), "1,2", 7, "sesame")
    assert (own.url, own.context, own.key) == ("embedded", 512, None)
    with pytest.raises(BadInput, match=r"model: 'fsat' is no alias.*did you mean fast"):
        read(file, text, environ, models="fsat")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:pw@h:5432/d", "postgresql://me:***@h:5432/d"),
        ("postgresql://me@h/d?password=pw", "postgresql://me@h/d?***"),
        ("http://h/v1?api-key=pw", "http://h/v1?***"),
        ("https://a-key@h/v1", "https://***@h/v1"),
        ("https://a-key:@h/v1", "https://***@h/v1"),
        ("htps://me:pw@h", "htps://me:***@h"),
        ("htps://a-key@h/v1", "htps://***@h/v1"),
        ("http://h/v1/models@one", "http://h/v1/models@one"),
        ("postgresql://me@h/d", "postgresql://me@h/d"),
        ("sqlite:////var/lib/x.db", "sqlite:////var/lib/x.db"),
        ("sqlite:////var/me@here/x.db", "sqlite:////var/me@here/x.db"),
        ("memory:", "memory:"),
    ],
)
def test_urls_are_shown_without_their_secrets(url: str, shown: str) -> None:
    assert masked_url(url) == shown


def test_backends_may_have_names(file: Path) -> None:
    text = "[serve.backends.gpu]\nurl = 'http://h/v1'\nimage_tokens = 900\n[serve.backends.'my old one']\nurl = 'http://i/v1'\n"
    config = read(file, text)
    assert [(backend.name, backend.url) for backend in config.backends] == [
        ("gpu", "http://h/v1"),
        ("my old one", "http://i/v1"),
    ]
    settings = [backend.settings().fields for backend in config.backends]
    assert [fields.setting for fields in settings] == ["[serve.backends.gpu]", '[serve.backends."my old one"]']
    assert settings[0].image_tokens == 900
    file.with_name("again.toml").write_text(effective(config))
    assert read_config(file.with_name("again.toml"), environ={}).backends == config.backends


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("[serve.backends.gpu]\nweight = 2\n", ("backends.gpu.url", "missing")),
        ("[serve.backends.gpu]\nurl = 'http://h/v1'\nwight = 2\n", ("backends.gpu", "did you mean weight")),
        ("[serve.backends.gpu]\nurl = 'http://h/v1'\nweight = 0\n", ("backends.gpu.weight: 0", "above 0")),
        ("[serve.backends]\nurl = 'http://h/v1'\n", ("backends", "[[serve.backends]] or [serve.backends.NAME]")),
        ("serve.backends = 'http://h/v1'\n", ("backends", "[[serve.backends]] or [serve.backends.NAME]")),
    ],
)
def test_wrong_words_of_a_named_backend_are_said_by_its_name(file: Path, text: str, parts: tuple[str, ...]) -> None:
    with pytest.raises(BadInput) as wrong:
        read(file, text)
    for part in parts:
        assert part in str(wrong.value)
