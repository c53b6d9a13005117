"""How many tokens were used, by whatever the server tells, or by its own tokeniser.

Knows: llama.cpp timings, OpenAI usage (at the end or with every chunk), log-probability entries, when each of them is
not to be believed, and the endpoints of vLLM's and llama.cpp's tokenisers. Guesses nothing from text lengths: stream
deltas are not tokens.
"""

from __future__ import annotations

from outthink.core.errors import EngineError
from outthink.engines.openai.body import Facts, template
from outthink.engines.protocol import Call
from outthink.http.events import Json, JsonObject
from outthink.http.server import Server
from outthink.http.usage import Coverage, read_count, read_timings, read_usage


class Counts:
    """Running counts of one completion."""

    __slots__ = ("_timed", "_used", "cached", "covered", "entries", "gaps", "prompt")

    def __init__(self) -> None:
        self.prompt: int | None = None
        self.cached: int | None = None
        self.entries = 0
        self.gaps = False
        """Text came without entries, so that their number is only a lower bound."""
        self.covered = Coverage()
        """Whether the server's counts are of all that came."""
        self._timed: int | None = None
        self._used: int | None = None

    def timings(self, sent: JsonObject) -> bool:
        """llama.cpp's counts of a chunk; whether they count the completion."""
        timed = read_timings(sent)
        if timed.completion is not None:
            self._timed = max(timed.completion, self._timed or 0)
        self.cached = self.cached if timed.cached is None else timed.cached
        self.prompt = timed.prompt or self.prompt
        return timed.completion is not None

    def usage(self, sent: JsonObject) -> int | None:
        """OpenAI: cumulative where it comes with every chunk, as vLLM can do; what it says of the completion."""
        usage = read_usage(sent)
        if usage.completion is not None:
            self._used = max(usage.completion, self._used or 0)
        self.cached = self.cached if usage.cached is None else usage.cached
        self.prompt = usage.prompt or self.prompt
        return usage.completion

    def add(self, entries: int, *, text: bool) -> None:
        """Entries of one chunk, and whether it had text."""
        self.entries += entries
        if text and not entries:
            self.gaps = True

    @property
    def tokens(self) -> int | None:
        """Generated tokens so far, None if the server does not tell."""
        entries = self.entries if not self.gaps else 0
        told = 0 if self.covered.broken else max(self._timed or 0, self._used or 0)
        if (known := max(told, entries)) == 0:
            return None
        return max(known, self.entries)

    def completion(self, *, text: bool) -> int | None:
        """Generated tokens of the finished completion: usage if plausible, else what was counted."""
        used, counted = self._used, max(self._timed or 0, self.entries)
        # A usage below what was seen is wrong, and so is a 0 beside text.
        if used is not None and used >= counted and (used > 0 or not text) and not self.covered.broken:
            return used
        return self.tokens


class Tokenizer:
    """`/tokenize` of one server; its absence is a fact and is not tried again."""

    def __init__(self, server: Server, facts: Facts) -> None:
        self._server, self._facts = server, facts

    async def text(self, text: str, model: str) -> int | None:
        """Tokens of a text, None without a tokeniser."""
        if not text:
            return 0
        # Both servers at once: llama.cpp reads `content`, vLLM and SGLang read `prompt`, and each
        # ignores what it does not know. The shape of the answer tells them apart.
        answer = await self._ask(
            "/tokenize",
            {"model": model, "prompt": text, "content": text, "add_special_tokens": False, "add_special": False},
        )
        if answer is None:
            return None
        tokens = answer.get("tokens")
        if (count := read_count(answer.get("count"))) is not None:
            self._facts.learn(tokenizer="vllm")
            return count
        if isinstance(tokens, list) and tokens:
            self._facts.learn(tokenizer="llama.cpp")
            return len(tokens)
        self._facts.learn(tokenizer="none")
        return None

    async def prompt(self, call: Call, model: str) -> int | None:
        """Tokens of a call's prompt under the chat template, None without a tokeniser."""
        if self._facts.tokenizer is None and await self.text("tokens", model) is None:
            return None
        if self._facts.counts_chats is False:
            return None
        messages: list[Json] = [message.wire() for message in call.messages]
        flags = template(call, self._facts)
        if call.prefix:
            messages.append({"role": "assistant", "content": call.prefix})
            flags |= {"continue_final_message": True, "add_generation_prompt": False}
        if self._facts.tokenizer == "vllm":
            answer = await self._ask("/tokenize", {"model": model, "messages": messages, **flags}, chat=True)
            return read_count(answer.get("count")) if answer is not None else None
        if self._facts.tokenizer == "llama.cpp":
            answer = await self._ask("/apply-template", {"messages": messages, **flags}, chat=True)
            rendered = answer.get("prompt") if answer is not None else None
            if not isinstance(rendered, str):
                return None
            # The server itself tokenises a chat in this way: with BOS, and with special tokens read.
            answer = await self._ask("/tokenize", {"content": rendered, "add_special": True, "parse_special": True})
            tokens = answer.get("tokens") if answer is not None else None
            return len(tokens) if isinstance(tokens, list) and tokens else None
        return None

    async def _ask(self, path: str, body: JsonObject, *, chat: bool = False) -> JsonObject | None:
        """An endpoint's answer; a refusal is remembered as absence, until then unseen."""
        facts = self._facts
        if facts.tokenizer == "none":
            return None
        try:
            answer = await self._server.fetch(path, body, root=True)
        except EngineError:
            # Counting is a service to the budget: the call that follows reports a server that is gone.
            return None
        value = answer.json() if answer.status == 200 else None
        if isinstance(value, dict):
            if chat:
                facts.learn(counts_chats=True)
            return value
        # These may pass, and say nothing about whether the server has a tokeniser.
        if (answer.status >= 500 and answer.status != 501) or answer.status in (408, 409, 429):
            return None
        if chat and facts.counts_chats is None:
            facts.learn(counts_chats=False)
        elif not chat and facts.tokenizer is None:
            facts.learn(tokenizer="none")
        return None


def shared_out(counted: list[int], rest: int | None) -> list[int | None]:
    """Tokens of each sample: `rest` belongs to those of which none were counted, or else to the last."""
    if rest is None:
        return [count or None for count in counted]
    silent = [at for at, count in enumerate(counted) if not count] or [len(counted) - 1]
    shares: list[int | None] = list(counted)
    for turn, at in enumerate(silent):
        shares[at] = counted[at] + rest // len(silent) + (turn < rest % len(silent))
    return shares
