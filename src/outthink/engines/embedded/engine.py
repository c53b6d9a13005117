"""The embedded engine: a small model in a child process, without any server to set up.

Knows when the child must be started, enlarged and ended, and how many tokens a slot must hold. Does not know HTTP (the
OpenAI-compatible engine talks to the child), where model files come from (`pull`), or budgets.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from outthink.core.errors import BadInput, EngineError
from outthink.core.plugins import need_extra
from outthink.engines.embedded.child import Child
from outthink.engines.embedded.fetch import SMOLLM2, pull
from outthink.engines.embedded.gguf import GGUFInfo, read_gguf
from outthink.engines.embedded.prompts import PromptReader
from outthink.engines.embedded.server import ServerOptions
from outthink.engines.openai import Facts, OpenAIEngine
from outthink.engines.protocol import Call, Engine, Event, Features, Finish
from outthink.http.transport import HttpxTransport

STEP = 256  # llama.cpp rounds a slot up to this
LEAST = 1024  # one default call (512 tokens) and a usual prompt: most callers never restart the server
_A_MESSAGE, _A_CHAT = 16, 64  # tokens of the chat template (docs/contracts.md, Budgets)


def prompt_bound(call: Call) -> int:
    """No fewer tokens than the prompt has: byte-level tokenisers make at most one a byte."""
    texts = [message.text for message in call.messages] + [call.prefix or ""]
    return sum(len(text.encode()) + _A_MESSAGE for text in texts) + _A_CHAT


def window(need: int, trained: int) -> int:
    """The context of a slot for calls of `need` tokens, within what the model was trained for."""
    return min(max(LEAST, -(-need // STEP) * STEP), trained)


_IDLE = 600.0  # seconds without a byte; the child's death closes its connections much earlier
_TOP = 20  # alternatives a token: llama.cpp has no limit, no strategy asks for more


class _Running(NamedTuple):
    """A server process and what speaks to it."""

    child: Child
    client: OpenAIEngine
    prompts: PromptReader


class EmbeddedEngine(Engine):
    """A GGUF model on this machine. Nothing is fetched or started before the first `prepare`.

    Args:
        model: path of a GGUF file, `hf:owner/repo/file.gguf`, or None for SmolLM2-135M-Instruct.
        concurrency: calls that may run at once; each takes its share of memory.
        context: least tokens of a call (prompt and completion) to be ready for; it grows on demand.
        threads: processor threads, None to choose by the number of cores.
        progress: show a bar while the model is fetched, if standard error is a terminal.
    """

    features = Features(logprobs=True, top_logprobs=_TOP, prefix=True, seed=True, counted=True)
    """What llama.cpp's server can do (measured)."""
    model: str
    parameters: int | None = None
    concurrency: int

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        concurrency: int = 8,
        context: int = 0,
        threads: int | None = None,
        progress: bool = True,
    ) -> None:
        for name, value, least in (("concurrency", concurrency, 1), ("context", context, 0), ("threads", threads, 1)):
            if value is not None and value < least:
                raise BadInput(name, value, f"is below {least}", f"give at least {least}")
        self._wanted = None if model is None else os.fspath(model)
        self.model = Path(self._wanted or SMOLLM2.file).name.removesuffix(".gguf")
        self.concurrency, self._context, self._threads, self._progress = concurrency, context, threads, progress
        self._info: GGUFInfo | None = None
        self._server: _Running | None = None
        self._effort: bool | None = None
        self._running = 0
        self._restarting = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock: asyncio.Lock
        self._idle: asyncio.Event

    def __repr__(self) -> str:
        return f"EmbeddedEngine({self.model!r}, concurrency={self.concurrency})"

    @property
    def notes(self) -> tuple[str, ...]:
        """Wishes about thinking that the server refused, or that the model's chat template has no place for."""
        notes = () if self._server is None else self._server.client.notes
        if self._effort is False:
            notes += (f"reasoning_effort: the chat template of {self.model} knows none; it changes nothing",)
        return notes

    @property
    def pid(self) -> int | None:
        """The child process, None while there is none."""
        server = self._fitting(0)
        return None if server is None else server.child.pid

    @property
    def address(self) -> tuple[str, str] | None:
        """URL and key of the running server, None while there is none; a new server has others."""
        server = self._fitting(0)
        return None if server is None else (server.child.url, server.child.key)

    async def prepare(self, call: Call) -> None:
        """Fetch the model and start the server, or enlarge it, so that this call fits.

        Raises:
            BadInput: there is no such model file, or the extra is not installed.
            EngineError: the model or memory is missing, or the call exceeds what the model was trained
                for (fatal).
        """
        await self._ready(call)

    async def generate(self, call: Call) -> AsyncGenerator[Event]:
        """Produce one completion; closing the iterator frees its slot."""
        child, client, prompts = await self._ready(call)
        if call.sampling.reasoning_effort is not None and self._effort is None:
            self._effort = await _template_has_effort(client)
        self._running += 1
        self._idle.clear()
        try:
            async with prompts.place(call) as cached, aclosing(client.generate(call)) as events:
                async for event in events:
                    if isinstance(event, Finish) and cached is not None:
                        event = replace(event, cached_tokens=cached)
                    yield event
        except EngineError as error:
            if error.fatal or not await child.ended():
                raise
            text = f"the embedded server ended: {child.fate()}; see {child.log}"
            raise EngineError(text, again=error.again, begun=error.begun) from error
        finally:
            self._running -= 1
            if not self._running:
                self._idle.set()

    async def count_prompt(self, call: Call) -> int | None:
        """Exact prompt tokens."""
        return await (await self._ready(call)).client.count_prompt(call)

    async def count_text(self, text: str) -> int | None:
        """Tokens of a text."""
        return await (await self._ready(None)).client.count_text(text)

    async def aclose(self) -> None:
        """End the child process. The engine may be used again, and then starts a new one."""
        server, self._server = self._server, None
        if server is not None:
            server.child.stop()
            await server.client.aclose()

    async def _ready(self, call: Call | None) -> _Running:
        """A running server whose slots hold this call."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:  # event loops come one after another: nothing of the last one runs any more
            self._loop, self._lock, self._idle, self._running = loop, asyncio.Lock(), asyncio.Event(), 0
            self._idle.set()
        bound = 0 if call is None else prompt_bound(call) + call.sampling.max_tokens
        if not self._restarting and (server := self._fitting(bound)) is not None:
            return server
        async with self._lock:
            self._restarting = True
            try:
                info = await self._model_file()
                server = self._fitting(0) or await self._restart(info, bound)
                if call is not None and self._fitting(bound) is None:
                    server = await self._enlarge(server, info, call)
                return server
            finally:
                self._restarting = False

    def _fitting(self, bound: int) -> _Running | None:
        """The server if it lives and its slots hold so many tokens."""
        server = self._server
        if server is None or not server.child.alive or bound > server.child.plan["slot_context"]:
            return None
        return server

    async def _model_file(self) -> GGUFInfo:
        if self._info is None:
            need_extra("local", "model", self._wanted or "embedded", load=False)  # before 98 MB are fetched for nothing
            stop = threading.Event()
            try:
                path = await asyncio.to_thread(pull, self._wanted, progress=self._progress, stop=stop)
            finally:
                stop.set()  # cancelled: the thread ends its download and goes
            self._info = await asyncio.to_thread(read_gguf, path)
            self.parameters = self._info.parameters
        return self._info

    async def _enlarge(self, server: _Running, info: GGUFInfo, call: Call) -> _Running:
        """The bound does not fit, so count exactly, and restart only if that does not fit either."""
        count = await server.client.count_prompt(call)
        prompt = prompt_bound(call) if count is None else count
        need = prompt + call.sampling.max_tokens
        if need > info.context:
            raise EngineError(
                f"{self.model} reads at most {info.context} tokens, and this call needs {need} "
                f"({prompt} of prompt, {call.sampling.max_tokens} to generate): shorten one, or take another model",
                fatal=True,
            )
        if need <= server.child.plan["slot_context"]:
            return server
        await self._idle.wait()
        return await self._restart(info, need)

    async def _restart(self, info: GGUFInfo, need: int) -> _Running:
        await self.aclose()
        cores = _cores()
        plan = ServerOptions(
            model=str(info.path.resolve()),
            alias=self.model,
            slots=self.concurrency,
            slot_context=window(max(need, self._context), info.context),
            # A single completion is read from memory and its threads meet after every layer: one core
            # stays free for whatever else runs. Measured on two cores, beside 0, 1 and 2 busy processes:
            # 53, 31 and 23 tokens a second with one thread, 17, 16 and 8 with two. Batches and prompts
            # gain from all cores (reading a prompt: 164 tokens a second with one, 308 with two).
            threads=self._threads or max(1, cores - 1),
            batch_threads=self._threads or cores,
        )
        child = Child(plan)
        try:
            await child.ready()
        except BaseException:
            child.stop()
            raise
        facts = Facts(
            logprobs=True, top_logprobs=_TOP, prefix=True, seed=True, tokenizer="llama.cpp", n=True, usage_sums=False
        )
        self._context = plan["slot_context"]  # it grows on demand and never shrinks, not even where the child has died
        client = OpenAIEngine(
            child.url,
            self.model,
            api_key=child.key,
            concurrency=self.concurrency,
            # llama.cpp closes the connection behind every streamed reply without saying so. A client that keeps
            # it loses the race with that end-of-file sooner or later, and with it the next request.
            transport=HttpxTransport(self.concurrency, secure=False, proxies=False, reuse=False),
            idle_timeout=_IDLE,
            memory=None,
            facts=facts,
        )
        self._server = _Running(child, client, PromptReader(client, child.folder, self.concurrency))
        return self._server


async def _template_has_effort(client: OpenAIEngine) -> bool | None:
    """Whether the chat template reads `reasoning_effort`, None if the server does not tell."""
    properties = (await client.server.fetch("/props", root=True)).object() or {}
    able = properties.get("chat_template_caps")
    has = able.get("supports_reasoning_effort") if isinstance(able, dict) else None
    return has if isinstance(has, bool) else None


def _cores() -> int:
    """Processors that this process may use (a container's share is not visible on every system)."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
