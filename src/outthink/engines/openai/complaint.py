"""What a server says when it refuses. Knows the shapes of error bodies; does not know what follows."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

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


@dataclass(frozen=True, slots=True)
class Complaint:
    """A refusal in the server's words: one line, the parameter it blames, its own code or type."""

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
    def sizes(self) -> tuple[int | None, int | None]:
        """Tokens asked for and tokens available, where the server gives them."""
        asked, limit = self.numbers.get("n_prompt_tokens"), self.numbers.get("n_ctx")
        if limit is None and (match := _LIMIT.search(self.message)):
            limit = int(match[1])
        if asked is None and (match := _ASKED.search(self.message)):
            asked = int(match[1])
        return asked, limit


def line(text: str, length: int = 300) -> str:
    """Text on one line, cut to a length."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."


def html(content: bytes) -> bool:
    """Whether this is a page for browsers."""
    return content.lstrip()[:200].lower().startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<body"))


def complaint(content: bytes) -> Complaint:
    """Read an error body of any known shape; other bodies are quoted."""
    try:
        return of(json.loads(content))
    except ValueError:
        return Complaint(line(content.decode("utf-8", "replace")))


def of(told: Any) -> Complaint:
    """Read a decoded error: OpenAI's, vLLM's, FastAPI's, llama.cpp's."""
    if isinstance(told, list) and told:  # Google wraps its error in a list
        told = told[0]
    if not isinstance(told, dict):
        return Complaint(line(str(told)))
    error = told.get("error", told)
    if isinstance(error, str):
        return Complaint(line(error), str(told.get("param") or ""), str(told.get("code") or ""))
    if not isinstance(error, dict):
        return Complaint(line(json.dumps(told)))
    detail = error.get("detail")
    if isinstance(detail, list) and detail and isinstance(detail[0], dict):
        where = detail[0].get("loc")
        path = ".".join(str(part) for part in where if part != "body") if isinstance(where, list) else ""
        message = f"{path}: {detail[0].get('msg', '')}" if path else str(detail[0].get("msg", ""))
        return Complaint(line(message), path, str(detail[0].get("type") or ""))
    message = error.get("message") or detail or error.get("msg") or json.dumps(error)
    code = " ".join(str(error[key]) for key in ("code", "type") if error.get(key) not in (None, ""))
    numbers = {key: error[key] for key in ("n_prompt_tokens", "n_ctx") if isinstance(error.get(key), int)}
    return Complaint(line(str(message)), str(error.get("param") or ""), code, numbers)
