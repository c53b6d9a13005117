"""Secrets are taken out of everything that is shown: error messages, log lines, addresses.

Knows: what API keys look like, the words that secrets stand behind, and where a URL holds them. Does not know who
shows what; nothing is kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

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
    """A URL as it may be shown: without its password and its query."""
    bare, _, query = url.partition("?")
    start, mark, rest = bare.partition("://")
    login, at, host = rest.rpartition("@")
    user, colon, _ = login.partition(":")
    shown = f"{start}{mark}{user}{':***' if colon else ''}{at}{host}" if at else bare
    return shown + ("?***" if query else "")
