"""What the dashboard shows of one request, and of the policy in use.

Knows: the receipt's layout, calls by role and model, why a request stopped, and a policy's frontier of accuracy and
cost. Does not know who asks, and draws nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from outthink.controller.policy.arms import HeldOut, Task
from outthink.controller.policy.artefact import Policy
from outthink.evaluation.report.html import about, policy_remarks
from outthink.http.fields import JsonDict
from outthink.serving.accounting import known_sum
from outthink.serving.endpoints import receipt_json
from outthink.serving.protocols import RequestRecord

ROLES = {
    "policy": "draws answers",
    "verifier": "checks answers",
    "probe": "asks for a short answer on the way",
    "router": "estimates how hard the question is",
}
"""What a call is for."""
REASONS = {
    "finished": "Everything that the strategy wanted was done.",
    "consensus": "The vote was decided before every sample had ended.",
    "first-m": "Enough samples had ended; the slower ones were not waited for.",
    "gave-up": "More samples did not promise to help.",
    "budget:tokens": "The budget in tokens was used up.",
    "budget:seconds": "The deadline had come.",
    "budget:usd": "The budget in dollars was used up.",
    "budget:joules": "The budget in joules was used up.",
    "interrupted": "The client left before the answer.",
    "error": "The request failed.",
}
"""Why a request stopped, by the receipt's word for it."""


_TOKENS = ("prompt_tokens", "completion_tokens", "cancelled_tokens")
LETTERS = 20_000
"""Of a stored request or reply; an image may be a hundred times as long."""


def finished_story(
    record: RequestRecord,
    remembered: JsonDict | None,
    content: tuple[str | None, str | None] | None = None,
) -> JsonDict:
    """The story as JSON values.

    Args:
        remembered: samples and votes, None where they have been forgotten.
        content: the request as it was sent and its reply, None where they are not stored.
    """
    sent, reply = content or (None, None)
    receipt = record.receipt or {}
    shown = {name: value for name, value in receipt_json(record).items() if name != "object"}
    return {
        "record": {**shown, "key": record.key_id},
        "reason": REASONS.get(record.stopped),
        "answer": receipt.get("answer"),
        "notes": list(receipt.get("notes") or ()),
        "tree": tree(receipt.get("entries") or ()),
        "remembered": remembered,
        "sent": _cut(sent),
        "reply": _cut(reply),
        "done": True,
    }


def running_story(remembered: JsonDict) -> JsonDict:
    """The story so far of a request that has not ended."""
    return {"record": None, "remembered": remembered, "done": False}


def tree(entries: Iterable[JsonDict]) -> list[JsonDict]:
    """Calls grouped by role and model, each group with its counts; the order is the receipt's."""
    groups: dict[tuple[str, str], JsonDict] = {}
    for number, entry in enumerate(entries):
        place = str(entry.get("role")), str(entry.get("model"))
        group = groups.setdefault(
            place,
            {"role": place[0], "model": place[1], "purpose": ROLES.get(place[0], ""), "counts": {}, "calls": []},
        )
        status = str(entry.get("status"))
        group["counts"][status] = group["counts"].get(status, 0) + 1
        group["calls"].append({"number": number + 1, **entry})
    for group in groups.values():
        group["tokens"] = known_sum(call.get(name) for call in group["calls"] for name in _TOKENS)
    return list(groups.values())


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= LETTERS else f"{text[:LETTERS]}… ({len(text):,} letters)"


def frontier(policy: Policy) -> JsonDict:
    """Facts, remarks, and a task's points in the order of its sizes; costs are means per problem."""
    return {
        "facts": [{"name": name, "value": value} for name, value in about(policy).items()],
        "remarks": policy_remarks(policy),
        "tasks": [_task(task) for task in policy.tasks],
    }


def _task(task: Task) -> JsonDict:
    points = [_point("policy", arm.name, arm.n, arm.held_out, chosen=arm.n == task.chosen) for arm in task.arms]
    for control in task.other.get("controls", ()):
        name, held = f"{control['strategy']}@{control['n']}", HeldOut.of(control["held_out"])
        points.append(_point(str(control["strategy"]), name, control["n"], held, chosen=False))
    return {"model": task.model, "dataset": task.dataset, "points": points}


def _point(series: str, name: str, n: int, held: HeldOut, *, chosen: bool) -> JsonDict:
    return {
        "series": series,
        "name": name,
        "n": n,
        "chosen": chosen,
        "accuracy": held.accuracy,
        "low": held.accuracy_low,
        "high": held.accuracy_high,
        "tokens": held.tokens,
        "flops": held.flops,
        "usd": held.usd,
        "seconds": held.seconds,
        "samples": held.samples,
        "problems": held.problems,
    }
