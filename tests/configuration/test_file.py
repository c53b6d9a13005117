"""Which configuration file is read, what it may say, and whose secrets it may name."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outthink.configuration.file import Configuration, read_configuration
from outthink.configuration.models import ModelChoice, choose_model, parameters_of
from outthink.core.errors import BadInput
from outthink.economics.price import Price
from outthink.economics.tariff import Energy

FAST = '[models.fast]\nurl = "http://192.0.2.1/v1"\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def environ(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), **more}


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def test_the_first_file_that_exists_is_read_and_a_named_one_before_all(here: Path, tmp_path: Path) -> None:
    assert read_configuration(environ=environ(tmp_path)).file is None
    home = write(tmp_path / "home/.config/outthink/config.toml", 'model = "home"\n')
    configuration = read_configuration(environ=environ(tmp_path))
    assert (configuration.file, configuration.named, configuration.written.model) == (home, "home", "home")
    other = write(tmp_path / "xdg/outthink/config.toml", 'model = "xdg"\n')
    assert read_configuration(environ=environ(tmp_path, XDG_CONFIG_HOME=str(tmp_path / "xdg"))).file == other
    write(here / "outthink.toml", 'model = "here"\n')
    configuration = read_configuration(environ=environ(tmp_path))
    assert (configuration.named, configuration.written.model) == ("working directory", "here")
    named = write(tmp_path / "named.toml", 'model = "named"\n')
    configuration = read_configuration(environ=environ(tmp_path, OUTTHINK_CONFIG=str(named)))
    assert (configuration.named, configuration.written.model) == ("$OUTTHINK_CONFIG", "named")
    assert read_configuration(home, environ=environ(tmp_path, OUTTHINK_CONFIG=str(named))).written.model == "home"
    with pytest.raises(BadInput, match=r"config: 'nowhere\.toml' cannot be read"):
        read_configuration(Path("nowhere.toml"), environ=environ(tmp_path))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[models.fast]\n", "models.fast.url: None is missing, and so is path; give one of the two"),
        (FAST + 'path = "x"\n', "models.fast.url: 'http://192.0.2.1/v1' stands beside path; give one of the two"),
        (FAST + "nmae = 'x'\n", "models.fast: 'nmae' is no key; did you mean name?"),
        (FAST + "name = 3\n", "models.fast.name: 3 is no text; write one in quotes"),
        (FAST + "parameters = 0\n", "models.fast.parameters: 0 is below 1; give at least 1, or leave it out"),
        (FAST + "parameters = 1.5\n", "models.fast.parameters: 1.5 is not a whole number; write a whole number"),
        (FAST + "price = 'x'\n", "models.fast.price: 'x' does not hold two numbers"),
        (FAST + "energy = '1'\n", "models.fast.energy: '1' is not two numbers"),
        (FAST + "api_key = 'sesame'\n", "models.fast.api_key: '...' is a secret; name its variable with api_key_env"),
        (FAST + "api_key_env = 'sk-sesame'\n", "models.fast.api_key_env: '***' is no name of a variable"),
        ("[models.fast]\nurl = 'http://me:sesame@h/v1'\n", "models.fast.url: 'http://me:***@h/v1' holds a secret"),
        ("[models.fast]\nurl = 'http://h/v1?key=sesame'\n", "models.fast.url: 'http://h/v1?***' holds a secret"),
        ("[models]\nfast = 'http://h'\n", "models.fast: 'http://h' is no section; write [NAME] above its keys"),
        ("[models.embedded]\nurl = 'http://h'\n", "models: 'embedded' cannot be told from an address or a file"),
        ("[models.'a/b']\nurl = 'http://h'\n", "models: 'a/b' cannot be told from an address or a file"),
        ("modles = 1\n", "'modles' is no section; did you mean models?"),
        ("listne = 1\n", "'listne' is no section; did you mean [serve.listen]?"),
        ("[listen]\nport = 1\n[models.fast]\nurl = 'http://h'\n", "listen: {'port': 1} is a section of the proxy"),
        ("[serve.backends.gpu]\nkey = 'sesame'\n", "serve.backends.gpu.key: '...' is a secret; name its variable"),
        ("model = 3\n", "model: 3 is no text; write one in quotes"),
        ("model = 1979-05-27\n", "model: datetime.date(1979, 5, 27) is no text"),
        ("model = [\n", "is no TOML"),
    ],
)
def test_what_is_wrong_is_one_line_that_names_its_place(tmp_path: Path, text: str, line: str) -> None:
    file = write(tmp_path / "c.toml", text)
    with pytest.raises(BadInput) as caught:
        read_configuration(file, environ=environ(tmp_path))
    told = str(caught.value)
    assert line in told
    assert str(file) in told
    assert "sesame" not in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("text", "field"),
    [
        (FAST + 'api_key_env = "AWS_SECRET_ACCESS_KEY"\n', "models.fast.api_key_env"),
        ('[serve.backends.gpu]\nurl = "http://h"\nkey_env = "GITHUB_TOKEN"\n', "serve.backends.gpu.key_env"),
        ('[[serve.backends]]\nurl = "http://h"\nkey_env = "GITHUB_TOKEN"\n', "serve.backends[0].key_env"),
        ('[serve.ledger]\nurl_env = "PGPASSWORD"\n', "serve.ledger.url_env"),
        ('[serve.backends.gpu]\nurl = "http://h"\nkey_file = "/etc/shadow"\n', "serve.backends.gpu.key_file"),
        ('[serve.backends.gpu]\nurl = "http://h"\nkey_file = "../x"\n', "serve.backends.gpu.key_file"),
        ('[backends.gpu]\nurl = "http://h"\nkey_env = "GITHUB_TOKEN"\n', "backends.gpu.key_env"),
    ],
)
def test_a_file_that_was_only_found_here_names_no_foreign_secret(
    here: Path, tmp_path: Path, text: str, field: str
) -> None:
    file = write(here / "outthink.toml", text)
    with pytest.raises(
        BadInput, match=re.escape(f"outthink.toml: {field}: ") + ".*only found in the working directory"
    ):
        read_configuration(environ=environ(tmp_path))
    assert read_configuration(file, environ=environ(tmp_path)).file == file, "who names the file trusts it"
    assert read_configuration(environ=environ(tmp_path, OUTTHINK_CONFIG="outthink.toml")).file == Path("outthink.toml")


def test_a_file_that_was_only_found_here_may_name_ours(here: Path, tmp_path: Path) -> None:
    text = FAST + 'api_key_env = "OPENAI_API_KEY"\n[serve.backends.gpu]\nurl = "http://h"\nkey_env = "OUTTHINK_GPU"\n'
    write(here / "outthink.toml", text)
    variables = environ(tmp_path, OPENAI_API_KEY="sesame")
    assert choose_model("fast", configuration=read_configuration(environ=variables)).api_key == "sesame"


def test_variables_beside_the_file_are_read_only_where_it_says_so(here: Path, tmp_path: Path) -> None:
    lines = """
        # a comment
        OUTTHINK_A=one
        export OUTTHINK_B = "two # no comment\\n\\"" # one
        OUTTHINK_C='th$ree'
        OUTTHINK_D=
        OUTTHINK_E=e # said
    """
    write(here / ".env", lines)
    write(here / "outthink.toml", FAST)
    assert "OUTTHINK_A" not in read_configuration(environ=environ(tmp_path)).variables
    write(here / "outthink.toml", 'env_file = ".env"\n' + FAST)
    variables = read_configuration(environ=environ(tmp_path, OUTTHINK_A="mine")).variables
    found = {name: value for name, value in variables.items() if name.startswith("OUTTHINK_")}
    assert found == {
        "OUTTHINK_A": "mine",
        "OUTTHINK_B": 'two # no comment\n"',
        "OUTTHINK_C": "th$ree",
        "OUTTHINK_D": "",
        "OUTTHINK_E": "e",
    }
    other = write(tmp_path / "other.env", "AWS=x\n")
    assert read_configuration(env_file=other, environ=environ(tmp_path)).variables["AWS"] == "x"
    write(here / ".env", "OPENAI_BASE_URL=http://evil\n")
    with pytest.raises(BadInput, match=r"OPENAI_BASE_URL.*only found in the working directory"):
        read_configuration(environ=environ(tmp_path)).variables  # noqa: B018 - read on first use
    write(here / ".env", "OUTTHINK_A=one\nsesame\n")
    with pytest.raises(BadInput, match="has no NAME=VALUE in line 2") as caught:
        read_configuration(environ=environ(tmp_path)).variables  # noqa: B018
    assert "sesame" not in str(caught.value)


def test_what_wins_between_flag_environment_file_and_default(tmp_path: Path) -> None:
    file = write(tmp_path / "c.toml", 'model = "fast"\n' + FAST)

    def where(named: str | None = None, **variables: str) -> str:
        configuration = read_configuration(file, environ=environ(tmp_path, **variables))
        return choose_model(named, configuration=configuration).where

    assert choose_model(configuration=Configuration(environ={})).where == "embedded"
    assert where() == "http://192.0.2.1/v1"
    assert where(OPENAI_BASE_URL="http://base/v1") == "http://base/v1"
    assert where(OPENAI_BASE_URL="http://base/v1", OUTTHINK_MODEL="http://ours/v1") == "http://ours/v1"
    assert where("embedded", OUTTHINK_MODEL="http://ours/v1") == "embedded"


def test_an_alias_brings_what_is_known_of_its_model(tmp_path: Path) -> None:
    text = FAST + "name = 'm'\nprice = '1,2'\nenergy = '0.1,0.2'\nparameters = 7\napi_key_env = 'TOY_KEY'\n"
    text += "[models.local]\npath = 'sub/m.gguf'\ncontext = 2048\n"
    configuration = read_configuration(
        write(tmp_path / "c.toml", text), environ=environ(tmp_path, TOY_KEY="sesame", MINE="other")
    )
    fast = choose_model("fast", configuration=configuration)
    assert (fast.where, fast.name, fast.price) == ("http://192.0.2.1/v1", "m", Price(1, 2))
    assert (fast.energy, fast.parameters, fast.source, fast.api_key) == (Energy(0.1, 0.2), 7, "alias", "sesame")
    assert "sesame" not in repr(fast)
    flagged = choose_model("fast", configuration=configuration, name="n", api_key_env="MINE")
    assert (flagged.name, flagged.api_key) == ("n", "other")
    with pytest.raises(BadInput, match=r"c\.toml: models\.local\.path: '.*sub/m\.gguf' does not exist; correct it"):
        choose_model("local", configuration=configuration)
    write(tmp_path / "sub/m.gguf", "")
    local = choose_model("local", configuration=configuration)
    assert (local.where, local.context) == (str(tmp_path / "sub/m.gguf"), 2048), "from the file's own folder"


def test_a_name_that_nobody_knows_is_refused_with_the_nearest(tmp_path: Path) -> None:
    configuration = read_configuration(write(tmp_path / "c.toml", FAST), environ=environ(tmp_path))
    with pytest.raises(BadInput, match=r"model: 'fsat' is no alias, no URL, no file .* did you mean fast\?"):
        choose_model("fsat", configuration=configuration)
    with pytest.raises(BadInput, match=r"or write \[models\.quick\] in outthink\.toml"):
        choose_model("quick", configuration=Configuration(environ={}))


def test_a_key_that_an_alias_names_goes_to_no_other_model(tmp_path: Path) -> None:
    text = FAST + "api_key_env = 'TOY_KEY'\n[models.other]\nurl = 'http://192.0.2.2/v1'\n"
    variables = environ(tmp_path, TOY_KEY="sesame", OPENAI_API_KEY="usual")
    configuration = read_configuration(write(tmp_path / "c.toml", text), environ=variables)
    assert choose_model("other", configuration=configuration).api_key is None
    assert choose_model("https://api.openai.com/v1", configuration=configuration).api_key == "usual"
    unset = read_configuration(tmp_path / "c.toml", environ=environ(tmp_path))
    with pytest.raises(BadInput, match=r"models\.fast\.api_key_env: 'TOY_KEY' is not set"):
        choose_model("fast", configuration=unset)


def test_parameters_of_files_come_from_the_flag_then_the_alias(tmp_path: Path) -> None:
    text = FAST + "name = 'big'\nparameters = 7\n[models.own]\npath = 'small-q4.gguf'\nparameters = 5\n"
    configuration = read_configuration(write(tmp_path / "c.toml", text), environ=environ(tmp_path))
    models = ["big", "small-q4", "third"]
    assert parameters_of(models, [], configuration) == {"big": 7, "small-q4": 5}
    assert parameters_of(models, ["3", "big=9"], configuration) == {"big": 9, "small-q4": 3, "third": 3}
    for line in ("x", "big=", "big=0", "big=-1", "big=1.5"):
        with pytest.raises(BadInput, match="is no number of weights"):
            parameters_of(models, [line], configuration)
    with pytest.raises(BadInput, match=r"--parameters: 'bgi' is none of the models; use one of big, small-q4, third"):
        parameters_of(models, ["bgi=3"], configuration)


_KEY = st.sampled_from(["model", "models", "serve", "env_file", "fast", "url", "path", "api_key_env", "listen", "key"])
_VALUE = st.recursive(
    st.sampled_from([True, 0, -1, 10**400, 1.5, float("nan"), "", "a", "http://h", date(2026, 1, 1)]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(_KEY, inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(_KEY, _VALUE, max_size=3))
def test_any_file_is_read_or_refused_in_one_line(tables: dict[str, object]) -> None:
    with patch("outthink.configuration.file._toml", return_value=tables):
        try:
            configuration = read_configuration(Path("c.toml"), environ={"HOME": "/nowhere"})
            for name in configuration.written.models:
                assert isinstance(choose_model(name, configuration=configuration), ModelChoice)
        except BadInput as error:
            told = str(error)
        else:
            return
    assert "\n" not in told
