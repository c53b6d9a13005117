"""Failures of a server as errors a user can act on.

Knows: the shapes of error bodies, HTTP statuses, and what to do about each. Every message is one line that names the
server, what was wrong and what to do, and never the key: what API keys look like, the words that secrets stand behind
and where a URL holds them is known here, for logs and addresses too. Does not know what was asked for; sends nothing.
"""

from __future__ import annotations

import json
import math
import re
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit

from outthink.core.errors import EngineError
from outthink.http.events import Json, JsonObject, first_event, is_html
from outthink.http.transport import Timeouts, TransportFault

_SHAPED = re.compile(r"\b(?:ot|sk|pk|key|hf|gsk|xai)[-_][\w*.~+/=-]{6,}", re.IGNORECASE)
_LABELLED = re.compile(
    r"(?P<label>\bBearer\s+|(?:key|token|password|secret)[\"']?\s*[=:]\s*[\"']?|://[^/\s:@]*:(?=[^/\s@]*@))"
    r"[^\s\"'&,;@]{6,}",
    re.IGNORECASE,
)


def scrub(text: str, known: Iterable[str] = (), *, labelled: bool = False) -> str:
    """Text without secrets: three stars stand for each.

    Args:
        known: secrets that must not appear, whoever repeats them.
        labelled: also take out what stands behind `Bearer`, `token=` and the like, at the risk of taking too much.
    """
    for secret in known:
        text = text.replace(secret, "***")
    text = _SHAPED.sub("***", text)
    return _LABELLED.sub(lambda match: match["label"] + "***", text) if labelled else text


def masked_url(url: str) -> str:
    """A URL as it may be shown: without its password and its query.

    A user without a password is a name where a database is, and a key elsewhere.
    """
    bare, _, query = url.partition("?")
    start, mark, rest = bare.partition("://")
    place, slash, path = rest.partition("/")
    login, at, host = place.rpartition("@")
    host += slash + path
    user, colon, password = login.partition(":")
    if not password and not start.startswith("postgres"):
        user, colon = "***", ""
    shown = f"{start}{mark}{user}{':***' if colon else ''}{at}{host}" if at else bare
    return shown + ("?***" if query else "")


_PRIVATE = re.compile(
    r"(?:\b\w{2,9}://)?(?:(?<![\w.-])(?:(?:10|127)(?:\.\d{1,3}){3}|(?:192\.168|169\.254|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2}"
    r"|localhost|(?:[\w-]{1,63}\.){1,9}(?:local|localdomain|internal|intranet|corp|lan|svc))(?![\w-])"
    r"|\[(?=[^\]:]*:[^\]:]*:)[0-9a-f:.%]{2,60}\]|(?<=://)[\w-]{1,63}(?![\w.@-]))(?::\d{1,5})?(?:/[^\s\"'<>,;)]*)?",
    re.IGNORECASE,
)
"""A private IP address or a name without meaning outside, alone or in a URL."""


def without_private(text: str) -> str:
    """Text without addresses of an inner network, for those who are outside of it."""
    return _PRIVATE.sub("***", text)


def shown_variable(name: str) -> str:
    """The name of a variable as it may be shown: people write the key itself in its place."""
    return name if _VARIABLE.fullmatch(name) else "***"


_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]*|[A-Za-z_]+")


_TELLING = (AttributeError, NameError, ImportError, OSError)
"""Exceptions whose words are about the program; those of others may quote what they failed on, a prompt for one."""


def trace_of(error: BaseException) -> str:
    """Where an exception comes from, the one behind it first, and its words only where they can quote no client."""
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    before = "" if behind is None else trace_of(behind) + "\n\n"
    words = f": {error}" if isinstance(error, _TELLING) else ""
    return before + "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__ + words


_CONTEXT = re.compile(
    r"context[ _-]?(?:length|size|window|limit)|exceed_context|maximum (?:model|sequence) length|max_model_len"
    r"|(?:prompt|input|message)s? (?:is|are) too long|too many (?:input )?tokens"
    r"|longer than the (?:model|maximum)|exceeds? the (?:model|maximum|available)",
    re.IGNORECASE,
)
_UNKNOWN = re.compile(
    r"unsupported|(?:not|isn't|n't) (?:currently |yet )?(?:be )?(?:supported?|permitted|allowed|available|implemented"
    r"|enabled|recogni[sz]ed|accepted|valid)|unrecogni[sz]ed|unknown|unexpected|extra[_ ](?:forbidden|inputs|fields)"
    r"|additional propert|no such (?:field|parameter)",
    re.IGNORECASE,
)
_LIMIT = re.compile(
    r"(?:context (?:length|size|window|limit)|n_ctx|maximum|available|limit)\D{0,40}?(\d{3,})", re.IGNORECASE
)
_ASKED = re.compile(
    r"(?:requested|resulted in|request has|prompt (?:has|contains|is)|passed|got|asked for)\D{0,30}?(\d{3,})",
    re.IGNORECASE,
)


_ABOUT_KEY = re.compile(
    r"invalid_api_key|authentication_error|permission_(?:error|denied)|unauthori[sz]ed|unauthenticated"
    r"|(?:incorrect|invalid|missing|expired|wrong|unknown|no) (?:\w+ )?(?:api[ _-]?key|bearer|credential)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """What a server says when it refuses: one line, the parameter that it blames, its own code or type.

    `numbers` are token counts that it gives apart from the text.
    """

    message: str
    param: str = ""
    code: str = ""
    numbers: dict[str, int] = field(default_factory=dict)

    @property
    def context(self) -> bool:
        """The request does not fit the model's context."""
        return bool(_CONTEXT.search(f"{self.code} {self.message}"))

    @property
    def unknown(self) -> bool:
        """A parameter is not known or not supported, as against having a bad value."""
        return bool(_UNKNOWN.search(f"{self.code} {self.message}"))

    @property
    def status(self) -> int | None:
        """The HTTP status that stands for it, where its code is one."""
        return next((int(word) for word in self.code.split() if word.isdecimal() and 400 <= int(word) < 600), None)

    @property
    def about_key(self) -> bool:
        """It refuses the key that the request was sent with, not the request."""
        return self.status in (401, 403) or bool(_ABOUT_KEY.search(f"{self.code} {self.message}"))

    @property
    def sizes(self) -> tuple[int | None, int | None]:
        """Tokens asked for and tokens available, where the server gives them."""
        asked, limit = self.numbers.get("n_prompt_tokens"), self.numbers.get("n_ctx")
        if limit is None and (match := _LIMIT.search(self.message)):
            limit = int(match[1])
        if asked is None and (match := _ASKED.search(self.message)):
            asked = int(match[1])
        return asked, limit

    @classmethod
    def parse(cls, content: bytes) -> ErrorBody:
        """Read an error body of any known shape, also as an event; other bodies are quoted."""
        try:
            return cls.of(json.loads(content))
        except (ValueError, RecursionError):
            told = first_event(content)
            return cls.parse(told) if told is not None else cls(one_line(content.decode("utf-8", "replace")))

    @classmethod
    def of(cls, value: Json) -> ErrorBody:
        """Read a decoded error: OpenAI's, vLLM's, FastAPI's, llama.cpp's."""
        if isinstance(value, list) and value:  # Google wraps its error in a list
            value = value[0]
        if not isinstance(value, dict):
            return cls(one_line(str(value)))
        error = value.get("error", value)
        if isinstance(error, str):
            return cls(one_line(error), one_line(str(value.get("param") or "")), _codes(value, value))
        if not isinstance(error, dict):
            return cls(one_line(json.dumps(value)))
        detail = error.get("detail")
        if isinstance(detail, list) and detail and isinstance(detail[0], dict):
            where = detail[0].get("loc")
            path = ".".join(str(part) for part in where if part != "body") if isinstance(where, list) else ""
            message = f"{path}: {detail[0].get('msg', '')}" if path else str(detail[0].get("msg", ""))
            return cls(one_line(message), one_line(path), one_line(str(detail[0].get("type") or "")))
        message = str(error.get("message") or detail or error.get("msg") or json.dumps(error))
        code = _codes(error, value)
        counts = {key: error.get(key) for key in ("n_prompt_tokens", "n_ctx")}
        numbers = {key: count for key, count in counts.items() if isinstance(count, int)}
        return cls(one_line(message), one_line(str(error.get("param") or "")), code, numbers)


def _codes(error: JsonObject, around: JsonObject) -> str:
    """The code and type of an error, and a status that stands in it or beside it."""
    words = [error[key] for key in ("code", "type") if error.get(key) not in (None, "")]
    statuses = [place.get(key) for place in (error, around) for key in ("status", "status_code", "statusCode")]
    words += [status for status in statuses if isinstance(status, int) and status not in words]
    return " ".join(dict.fromkeys(one_line(str(word)) for word in words))


_REPLY = frozenset({"choices", "response", "output", "data", "delta", "usage", "object", "type", "embedding"})
_WORDS = ("detail", "errors", "message", "msg", "error_msg")
_BROKEN_OFF = frozenset({"error", "abort", "aborted", "network_error", "internal_error", "server_error"})
_BROKEN_OFF |= {"insufficient_system_resource"}  # DeepSeek


def breaks_off(reason: Json) -> bool:
    """Whether a finish reason says that the server could not go on."""
    return isinstance(reason, str) and reason.lower() in _BROKEN_OFF


_FAILING = frozenset({"error", "type", "x_groq", "response", "status"})
"""Fields in which a chunk with choices may tell of a failure."""


def failure_in(chunk: JsonObject) -> ErrorBody | None:
    """The failure that a chunk, or a whole reply, tells of in spite of a status of 200; None where it tells of none."""
    if "choices" in chunk and _FAILING.isdisjoint(chunk) and chunk.get("object") != "error":
        return None  # most have nothing in which one could be told
    if chunk.get("error") or chunk.get("object") == "error" or chunk.get("type") == "error":
        return ErrorBody.of(chunk)
    if _REPLY.isdisjoint(chunk) and any(map(chunk.get, _WORDS)):  # words, and nothing of a reply
        return ErrorBody.of(chunk)
    if isinstance(told := chunk.get("x_groq"), dict) and told.get("error"):  # in the last chunk of a stream
        return ErrorBody.of(told)
    response = chunk.get("response")
    body = response if isinstance(response, dict) and "choices" not in chunk else chunk
    if chunk.get("type") == "response.failed" or body.get("status") in ("failed", "error"):
        return ErrorBody.of(body["error"]) if body.get("error") else ErrorBody("the response failed")
    return None


def failed_choice(chunk: JsonObject) -> bool:
    """Whether a choice ends in an error of its own."""
    choices = chunk.get("choices")
    return isinstance(choices, list) and any(
        isinstance(choice, dict) and (bool(choice.get("error")) or breaks_off(choice.get("finish_reason")))
        for choice in choices
    )


_WIDE = 40
"""So many times the letters of a line are looked at for it: of megabytes the beginning alone."""


def one_line(text: str, length: int = 300) -> str:
    """Text on one line, cut to a length."""
    start = text.lstrip()
    line = " ".join(start[: _WIDE * length].split())
    return line if len(line) <= length and len(start) <= _WIDE * length else line[: length - 3] + "..."


REDIRECTED = "redirects ({}); its operator has to give the address that it redirects to"
"""What is told of a redirection to those who do not know the server's address either."""
_TRANSIENT = frozenset({408, 409, 423, 425, 429})


class ServerErrors:
    """Words errors for one server.

    Args:
        url: the address as it may be shown.
        secrets: strings that must not appear in any message, whoever repeats them.
        timeouts: what was waited for, for the messages about waiting.
    """

    def __init__(self, url: str, secrets: tuple[str, ...], timeouts: Timeouts) -> None:
        self.url = url
        self._secrets = tuple(secret for secret in secrets if secret)
        self.timeouts = timeouts

    def error(
        self,
        text: str,
        *,
        fatal: bool = False,
        again: bool = False,
        retry_after: float | None = None,
        begun: bool = False,
    ) -> EngineError:
        """An error about this server, without secrets."""
        line = self.clean(f"{self.url} {text}")
        return EngineError(line, fatal=fatal, again=again, retry_after=retry_after, begun=begun)

    def clean(self, text: str) -> str:
        """Text on one line with every secret replaced."""
        return scrub(one_line(text, 600), self._secrets)

    def fault(self, fault: TransportFault) -> EngineError:
        """The error for a request that got no answer, or only a part of one."""
        if fault.kind == "connect":
            why = f" ({fault.detail})" if fault.detail else ""
            return EngineError(self.clean(f"no server answers at {self.url}; is it running?{why}"))
        if fault.kind == "tls":
            text = f"has a certificate that is not trusted ({fault.detail}); check the URL, or install its authority"
            return self.error(text, fatal=True)
        if fault.kind == "idle":
            waited = f" for {self.timeouts.idle:g} s" if self.timeouts.idle is not None else ""
            remedy = "it hangs or is overloaded: look at it, or raise --idle-timeout"
            return self.error(f"sent nothing{waited}; {remedy}", begun=True)
        why = f" ({fault.detail})" if fault.detail else ""
        lost = f"dropped the connection{why}; it may have crashed or restarted, see its log"
        return self.error(lost, again=fault.unsent, begun=not fault.unsent)

    def page(self) -> EngineError:
        """The error for a web page where JSON was due."""
        parts = urlsplit(self.url)
        usual = f"{parts.scheme}://{parts.netloc}/v1"
        hint = (
            f"try {usual}"
            if parts.netloc and usual != self.url
            else "web interfaces often sit on another port or path than .../v1"
        )
        return self.error(f"answered HTML, is this the API URL? {hint}", fatal=True)

    def garbled(self, content: bytes, *, fatal: bool) -> EngineError:
        """The error for something that is neither JSON nor HTML."""
        quoted = content[:60].decode("utf-8", "replace")
        return self.error(f"answered something that is not JSON ({quoted!r}); is this the API URL?", fatal=fatal)

    def status(
        self,
        status: int,
        headers: Mapping[str, str],
        content: bytes,
        *,
        model: str = "",
        refusal: ErrorBody | None = None,
    ) -> EngineError:
        """The error for a status other than 200; `refusal`: what the content says, where that is known."""
        if refusal is None or is_html(content) or not content.strip():
            refusal = ErrorBody.parse(content) if content.strip() and not is_html(content) else ErrorBody("")
        wait = retry_after(headers)
        if 300 <= status < 400:
            return self.redirected(status, headers)
        if is_html(content) and status < 500 and status not in _TRANSIENT and status not in (401, 403):
            return self.page()
        return self.refused(status, refusal, wait=wait, model=model)

    def redirected(self, status: int, headers: Mapping[str, str]) -> EngineError:
        """The error for a reply that names another address."""
        place = masked_url(headers.get("location", "elsewhere"))
        return self.error(f"redirects to {place}; use that URL instead", fatal=True)

    def refused(self, status: int, refusal: ErrorBody, *, wait: float | None = None, model: str = "") -> EngineError:
        """The error for a refusal, by its status and its words, at the start or within a stream."""
        words = f": {refusal.message}" if refusal.message else ""
        if refusal.context or status == 413:
            asked, limit = refusal.sizes
            sizes = f" ({asked or '?'} tokens asked, {limit} available)" if limit else words
            return self.error(
                f"cannot fit the request into the model's context{sizes}; shorten the prompt or lower max_tokens",
                fatal=True,
            )
        if status in (401, 403):
            text = (
                f"refused the API key ({status}{words}); set OPENAI_API_KEY or name another variable with --api-key-env"
            )
            if not self._secrets:
                text = (
                    f"wants an API key ({status}{words}), and none was sent: name its variable with --api-key-env, "
                    "because OPENAI_API_KEY goes to OPENAI_BASE_URL alone (api.openai.com where that is unset)"
                )
            return self.error(text, fatal=True)
        if status == 404:
            named = f"model {model!r} or " if model else ""
            return self.error(
                f"does not know {named}this path (404{words}); see what it serves with: outthink doctor {self.url}",
                fatal=True,
            )
        if status == 429 and "insufficient_quota" in refusal.code:
            return self.error(f"has no quota left for this key (429{words}); check its plan and billing", fatal=True)
        if status in _TRANSIENT or status >= 500:
            advice = "slow down or lower the concurrency" if status == 429 else "it may recover, try again"
            text = f"failed for now ({status} {_phrase(status)}{words}); {advice}"
            return self.error(text, again=_unread(status, refusal, wait), retry_after=wait, begun=status in OUTWAITED)
        return self.error(f"refused the request ({status}{words}); change what it names", fatal=True)


# Which refusals say that the request was not begun. A server that answers anything else may have worked on it before it
# failed, and sending it again could be paid for twice.

_LOADING = re.compile(
    r"(?:(?<![a-z])|model)(?:re|down)?loading(?:error)?(?![a-z])|\bbeing (?:down)?loaded\b"
    r"|(?:(?:(?<![a-z])|model)not|n't)[ _-]?(?:yet[ _-])?(?:loaded|ready|started|initiali[sz]ed)(?![a-z])"
    r"|(?<![a-z])warm(?:ing)?[ _-]?up(?![a-z])|\b(?:is|still|currently) starting\b|\bstarting up\b"
    r"|(?<![a-z])initiali[sz](?:ing|ation)(?![a-z])",
    re.IGNORECASE,
)


def refused_unread(status: int, headers: Mapping[str, str], content: bytes) -> bool:
    """Whether a refusal says that the request was not begun: 429, and 503 with a pause or from a model that loads."""
    if status != 503 or is_html(content):  # a page is of whatever stands before the server
        return status == 429 or (status == 503 and retry_after(headers) is not None)
    return _unread(status, ErrorBody.parse(content[:_READ]), retry_after(headers))


OUTWAITED = frozenset({504, 524})
"""What a gateway answers whose server has taken the request and is not done in time: nobody knows what it has cost."""

_READ = 1 << 14  # bytes of a refusal that are looked at


def _unread(status: int, refusal: ErrorBody, wait: float | None) -> bool:
    loading = _LOADING.search(f"{refusal.code} {refusal.message}")
    return status == 429 or (status == 503 and (wait is not None or loading is not None))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "non-standard status"


_LONGEST = 86_400.0  # seconds that a server may ask for: what stands for more is no time


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, a day at most: milliseconds (OpenAI), seconds or an HTTP date."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        first = value.partition(",")[0].strip()  # some clients join headers that came twice
        try:
            seconds = float(first) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, OverflowError, OSError):  # what no calendar or clock holds
                continue
        if math.isfinite(seconds) or first.isdecimal():
            return min(max(0.0, seconds), _LONGEST)
    return None
