"""From what the user writes as `--model` to an engine.

Knows: `embedded`, URLs, paths of GGUF files, the schemes of plugins, and which servers get which key. Does not start
anything.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from outthink.core.errors import BadInput
from outthink.core.plugins import make
from outthink.engines.protocol import Engine
from outthink.http.errors import masked_url, shown_variable
from outthink.http.server import Address

SCHEMES = ("embedded", "http", "https")
"""What plugins cannot be called."""


def locate(
    model: str,
    *,
    name: str | None = None,
    api_key: str | None = None,
    idle_timeout: float = 60.0,
    context: int = 0,
) -> Engine:
    """The engine for a URL, a GGUF path, `embedded`, or SCHEME:REST of a plugin.

    Args:
        name: the model a server should use, None for its first.
        api_key: sent as bearer token; None for OPENAI_API_KEY where that belongs to the server (`usual_key`).
        idle_timeout: seconds without any byte after which a server counts as hanging.
        context: tokens of a call that a local model is ready for from the start.

    Raises BadInput for anything else.
    """
    if model == "embedded" or model.endswith(".gguf") or Path(model).is_file():
        from outthink.engines.embedded import EmbeddedEngine

        return EmbeddedEngine(None if model == "embedded" else model, context=context)
    if model.startswith(("http://", "https://")):
        from outthink.engines.openai import OpenAIEngine

        key = usual_key(model) if api_key is None else api_key
        return OpenAIEngine(model, name, api_key=key, idle_timeout=idle_timeout)
    scheme, colon, rest = model.partition(":")
    plugged: Engine | None = make("engines", scheme, rest) if colon else None
    if plugged is not None:
        return plugged
    raise BadInput("model", masked_url(model), "is no URL, no file and not `embedded`", "give one of these")


_OPENAI = "https://api.openai.com/v1"
_PORTS = {"http": 80, "https": 443}


def usual_key(url: str, environ: Mapping[str, str] | None = None) -> str | None:
    """$OPENAI_API_KEY for the origin of $OPENAI_BASE_URL (OpenAI's own where that is unset), None for other servers."""
    environ = os.environ if environ is None else environ
    with suppress(BadInput):  # neither address can be the other where one of them is none
        if _origin(url) == _origin(environ.get("OPENAI_BASE_URL") or _OPENAI):
            return environ.get("OPENAI_API_KEY") or None
    return None


def named_key(variable: str | None, environ: Mapping[str, str] | None = None) -> str | None:
    """The key in a variable that was named, None where none was. Raises BadInput for one that is not set."""
    if variable is None:
        return None
    key = (os.environ if environ is None else environ).get(variable, "").strip()
    if not key:
        raise BadInput(
            "--api-key-env", shown_variable(variable), "is not set", "set that variable, or leave the flag out"
        )
    return key


def _origin(url: str) -> tuple[str, str | None, int | None]:
    """Scheme, host and port as they are connected to. Raises BadInput."""
    parts: SplitResult = urlsplit(Address.parse(url).base)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
