"""A scripted chat server on loopback in a process of its own, so that its work is not counted as ours.

Knows: how to start tests/support/chat_server.py with a fixed stream of tokens with
log-probabilities, slow or at once, and how to ask it which requests it has seen. Does not know any
benchmark.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "tests" / "support"))

import chat_server as chat  # noqa: E402 - from the tests, which are no package

WORDS = " Seventeen times twenty is 340, seventeen times three is 51. The answer is 391.".replace(" ", "| ").split("|")[
    1:
]


def key(body: dict[str, Any]) -> str:
    """What makes two requests the same sample: the question, the seed and the temperature."""
    return f"{body['messages'][-1]['content']}#{body.get('seed')}#{body['temperature']}"


def serve(words: int, delay: float, alone: bool, spread: bool) -> None:
    """Answer until killed. With a delay the text ends in a number of its own for every sample."""
    replies: dict[str, chat.Reply] = {}

    def answer(seen: chat.Seen) -> chat.Reply:
        name = key(seen.body) if delay else ""
        reply = replies.get(name)
        if reply is None:
            digest = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
            length = words // 2 + digest % (words + 1) if spread else words
            texts = [WORDS[at % len(WORDS)] for at in range(length)]
            if delay:
                texts[-1] = f" The answer is {digest}."
            steps: list[chat.Step] = [chat.chunk(delta={"role": "assistant", "content": ""})]
            for text in texts:
                steps += [delay] if delay else []
                steps.append(chat.chunk(text, logprobs=[chat.token(text)]))
            steps += [chat.chunk(finish="stop"), chat.usage(20, length), chat.DONE]
            reply = replies[name] = chat.stream(*steps, together=not alone)
        return reply

    with chat.ChatServer(answer) as server:

        def asked(_: chat.Seen) -> chat.Reply:
            return chat.whole([[key(call.body), call.sent] for call in server.calls])

        server.routes["/asked"] = asked
        print(server.url, flush=True)
        threading.Event().wait()


@contextmanager
def loopback(*, words: int = 20, delay: float = 0.0, alone: bool = False, spread: bool = False) -> Iterator[str]:
    """The URL of a running server.

    Args:
        words: pieces of text in each reply, one token each.
        delay: seconds before each piece.
        alone: write every piece by itself, as a model does, instead of all at once.
        spread: lengths from half of `words` to one and a half (needs a delay).
    """
    code = f"import loopback; loopback.serve({words}, {delay}, {alone}, {spread})"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def asked(url: str) -> list[tuple[str, bool]]:
    """Key of every chat request so far, and whether its reply was sent to its end."""
    with urllib.request.urlopen(url.removesuffix("/v1") + "/asked", timeout=10) as reply:
        return [(str(name), bool(sent)) for name, sent in json.load(reply)]
