"""From what the user writes as `--model` to an engine.

Knows: `embedded`, URLs, paths of GGUF files, and the schemes of plugins. Does not start anything.
"""

from __future__ import annotations

import os
from pathlib import Path

from outthink.core.errors import BadInput
from outthink.core.plugins import make
from outthink.engines.protocol import Engine

SCHEMES = ("embedded", "http", "https")
"""What plugins cannot be called."""


def locate(model: str, *, name: str | None = None, api_key: str | None = None, idle_timeout: float = 60.0) -> Engine:
    """The engine for a URL, a GGUF path, `embedded`, or SCHEME:REST of a plugin.

    Args:
        name: the model a server should use, None for its first.
        api_key: sent as bearer token, None to read OPENAI_API_KEY.
        idle_timeout: seconds without any byte after which a server counts as hanging.

    Raises BadInput for anything else.
    """
    if model == "embedded" or model.endswith(".gguf") or Path(model).is_file():
        from outthink.engines.embedded import EmbeddedEngine

        return EmbeddedEngine(None if model == "embedded" else model)
    if model.startswith(("http://", "https://")):
        from outthink.engines.openai import OpenAIEngine

        key = api_key or os.environ.get("OPENAI_API_KEY")
        return OpenAIEngine(model, name, api_key=key, idle_timeout=idle_timeout)
    scheme, colon, rest = model.partition(":")
    plugged: Engine | None = make("engines", scheme, rest) if colon else None
    if plugged is not None:
        return plugged
    raise BadInput("model", model, "is no URL, no file and not `embedded`", "give one of these")
