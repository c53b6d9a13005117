"""Errors as OpenAI's clients expect them. Knows statuses, types and codes; does not know who raises what.

Every message is one line that names the field and what to do, and holds nothing of other clients.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping

from outthink.core.errors import BadInput, EngineError, OutthinkError, Unsupported
from outthink.http.errors import one_line
from outthink.http.events import Json
from outthink.http.transport import TransportFault
from outthink.serving.pool.failover import KeyRefused
from outthink.serving.pool.pool import NoBackend, Resting
from outthink.serving.protocols import Busy, Key, LedgerDown, OverBudget, Repeated

_NAME = 200
"""Letters of a field's name."""
KINDS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}
"""`error.type` by status; all other 4xx are `invalid_request_error`, 5xx `server_error`."""


class Failure(OutthinkError):
    """A request that gets an error object.

    Args:
        status: HTTP status.
        param: the field that is wrong, None where it is not about one.
        code: for programs; stable.
        retry_after: seconds after which another attempt may succeed.
        headers: more headers of the reply.
        stored: what ledger, log and trace keep of it; status and code where left out, because the message may quote
            a backend or a prompt.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
        stored: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.stored = stored or f"{status} {code or 'error'}"
        self.kind = KINDS.get(status, "server_error" if status >= 500 else "invalid_request_error")
        self.headers = dict(headers or {})
        if retry_after is not None:
            # The header takes whole seconds, and 0 would send clients back at once.
            self.headers["retry-after"] = str(max(1, math.ceil(retry_after)))

    def body(self) -> bytes:
        """The error object as JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


def bad_body(status: int, what: str, code: str) -> Failure:
    """The error for a body that cannot be used."""
    return Failure(status, f"body: {what}", param="body", code=code)


def too_long(most: int) -> Failure:
    """The error for a body of more than so many bytes."""
    return bad_body(413, f"is longer than {most / (1 << 20):g} MiB; send less, or raise the limit", "body_too_large")


def bad_field(name: str, value: Json, problem: str, remedy: str, *, code: str = "invalid_value") -> Failure:
    """A field of the request that cannot be used. A client may have chosen its name: some of a long one is enough."""
    name = one_line(name, _NAME) or "''"
    return Failure(400, str(BadInput(name, value, problem, remedy)), param=name, code=code)


def backend_auth(status: int, backend: str) -> Failure:
    """A backend has refused the proxy's own key (401 or 403): the client's was fine, and nothing of this is its own.

    Args:
        backend: its URL without secrets, or `of MODEL`; for the operator alone.
    """
    return Failure(
        502,
        f"the backend refused the proxy's own key ({status}); its operator has to look at it",
        code="backend_auth",
        stored=f"backend {backend} answered {status}; give its key (key_env or --api-key-env)",
    )


def check_admin(key: Key) -> None:
    """Refuse a key that may not see other keys' requests. Raises Failure."""
    if not key.admin:
        message = "API key: is not an admin's; use one made with `outthink keys add NAME --admin`"
        raise Failure(403, message, param="Authorization", code="admin_only")


def wrong_method(method: str, allowed: Iterable[str]) -> Failure:
    """A path that is served, but not so."""
    named = ", ".join(sorted(allowed))
    message = f"method: {method[:20]!r} is not possible here; use {named}"
    return Failure(405, message, param="method", code="method_not_allowed", headers={"allow": named})


def unknown_cost(field: str, model: str, unit: str, why: str) -> Failure:
    """A budget in a currency that nobody can count for this model."""
    what = f"what {model[:120]} costs in {unit} is not known here, and {why}"
    return Failure(400, f"{field}: {what}; the proxy's operator can state it", param=field, code="unsupported")


def failure_of(error: Exception) -> Failure | None:
    """The error object for an exception, None for one that nobody foresaw."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, BadInput):
        return Failure(400, str(error), param=error.field, code="invalid_value")
    if isinstance(error, Unsupported):
        return Failure(400, str(error), param="model", code="unsupported")
    if isinstance(error, OverBudget):
        return _stored(429, str(error), code="insufficient_quota", retry_after=error.retry_after)
    if isinstance(error, Busy):
        return _stored(429, str(error), code="queue_full", retry_after=error.retry_after)
    if isinstance(error, Repeated):
        return Failure(409, str(error), param="Idempotency-Key", code="idempotency_conflict")
    if isinstance(error, LedgerDown):
        # Clients get the public part alone: the other names the database.
        return _stored(503, error.public, code="ledger_unavailable", retry_after=5.0)
    if isinstance(error, Resting):  # before NoBackend, of which it is a kind
        return _stored(429, str(error), code="backend_busy", retry_after=error.retry_after or 1.0)
    if isinstance(error, NoBackend):
        return _stored(503, str(error), code="no_backend", retry_after=error.retry_after or 5.0)
    if isinstance(error, TransportFault):
        return _fault(error)
    if isinstance(error, KeyRefused):
        return backend_auth(error.status, error.backend)
    if isinstance(error, EngineError):
        return Failure(502, str(error), code="backend_error", retry_after=error.retry_after)
    return None


def _stored(status: int, message: str, *, code: str, retry_after: float | None = None) -> Failure:
    """A failure in words of ours that quote nobody, so that they may be stored."""
    return Failure(status, message, code=code, retry_after=retry_after, stored=message)


def _fault(fault: TransportFault) -> Failure:
    if fault.kind == "idle":
        return _stored(504, "the backend sent nothing for too long; try again", code="backend_timeout")
    what = "cannot be reached" if fault.kind in ("connect", "tls") else "dropped the connection"
    return _stored(502, f"the backend {what}; try again", code="backend_error")
