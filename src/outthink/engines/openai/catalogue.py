"""The models that a server lists. Knows GET /models; does not choose."""

from __future__ import annotations

from outthink.engines.openai.complaint import html
from outthink.engines.openai.server import Server


async def models(server: Server) -> list[str] | None:
    """Names in the server's order, None where it has no list.

    Raises:
        EngineError: the server does not answer, refuses, or answers something else than a list.
    """
    answer = await server.fetch("/models")
    if answer.status in (404, 405, 501) and not html(answer.content):
        return None
    if answer.status != 200:
        raise server.voice.status(answer.status, answer.headers, answer.content)
    told = answer.json()
    rows = told.get("data", told.get("models")) if isinstance(told, dict) else told
    if not isinstance(rows, list):
        if html(answer.content):
            raise server.voice.page()
        raise server.voice.garbled(answer.content, fatal=True)
    names = (row.get("id") or row.get("name") if isinstance(row, dict) else row for row in rows)
    return [name for name in names if isinstance(name, str) and name]
