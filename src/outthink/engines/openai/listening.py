"""One completion heard out in full, for the doctor. Knows what came; draws no conclusions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from outthink.core.errors import EngineError
from outthink.core.request import Message, Sampling
from outthink.engines.openai.decoder import Decoder, NotJson
from outthink.engines.openai.engine import OpenAIEngine
from outthink.engines.openai.reading import Reading
from outthink.engines.openai.transport import TransportFault
from outthink.engines.protocol import Call


@dataclass(slots=True)
class Heard:
    """A reply: its chunks as they came, the same read as a completion, and its new text."""

    chunks: list[dict[str, Any]]
    reading: Reading
    text: str
    kind: str


def question(text: str, *, most: int, temperature: float, **fields: Any) -> Call:
    """A call with one user message."""
    return Call((Message("user", text),), Sampling(temperature=temperature, max_tokens=most), **fields)


async def listen(engine: OpenAIEngine, call: Call) -> Heard:
    """Run a call to its end, adapting as `generate` does.

    Raises:
        EngineError: it failed.
    """
    reply = await engine.start(call)
    decoder, reading = Decoder(), Reading(call)
    chunks: list[dict[str, Any]] = []
    try:
        async for piece in reply:
            chunks += decoder.feed(piece)
        chunks += decoder.close()
    except TransportFault as fault:
        raise engine.server.voice.fault(fault) from fault
    except NotJson as error:
        raise engine.server.voice.error(f"answered something that is not JSON ({str(error)!r})") from error
    finally:
        await reply.aclose()
    if decoder.kind == "page":
        raise engine.server.voice.page()
    text = ""
    for chunk in chunks:
        if chunk.get("error"):
            raise EngineError(engine.server.voice.clean(f"{engine.url} failed: {chunk['error']}"))
        delta = reading.take(chunk)
        text += delta.text if delta is not None else ""
    rest = reading.rest()
    return Heard(chunks, reading, text + (rest.text if rest is not None else ""), decoder.kind)
