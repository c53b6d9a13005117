"""What all requests share of the backends: the pool, facts about servers, places, prices, and the policies.

Knows: which policy decides for a request and when its file has changed, whether samples may share a call, and what a
model costs. Nothing in here comes from a client, so nothing of one can reach another.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from dataclasses import dataclass, replace
from operator import attrgetter
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from outthink.controller.decide import need_one_chooser, need_same_verifier
from outthink.controller.policy.artefact import Policy
from outthink.controller.policy.plan import Plan
from outthink.controller.router.chooser import ModelChooser, RoutedChoice
from outthink.core.errors import BadInput
from outthink.core.paths import cache_dir
from outthink.core.request import Budget
from outthink.engines.openai.body import Facts, file_for, recall
from outthink.http.server import Address
from outthink.serving.chat.engine import CallSharing
from outthink.serving.failure import Failure, unknown_cost
from outthink.serving.pool.pool import NoBackend, Tariffs
from outthink.serving.pool.rules import FieldRules
from outthink.serving.protocols import Key
from outthink.session.runner import Places

if TYPE_CHECKING:
    from outthink.serving.app import App
    from outthink.serving.verifier import ServedVerifier

_log = logging.getLogger("outthink.serving")
_EVERY = 2.0
"""Seconds between two looks at the files."""
_PARTS = 1 << 32
_FRESH = 60.0
"""Seconds after which it is looked up again what `outthink doctor` has found out."""


class Backends:
    """One proxy's, for every model that its pool serves."""

    def __init__(
        self,
        app: App,
        policies: Policies,
        router: ModelChooser | None = None,
        verifier: ServedVerifier | None = None,
    ) -> None:
        self.router, self.verifier = router, verifier
        policies.router = None if router is None else router.predictor.id[:12]
        self.pool, self.wire, self.limits, self.policies = app.pool, app.wire, app.limits, policies
        self.tariffs = Tariffs(app.pool)
        self.queue_seconds = app.admission.settings.queue_seconds
        self._facts: dict[str, Facts] = {}
        self._places: dict[str, Places] = {}
        self._found: dict[str, tuple[float, list[Facts]]] = {}
        self._disproved: set[str] = set()
        app.pool.more = self._hand_out

    def names(self, key: Key) -> list[str]:
        """Models that strategies of a key draw from unless it names one: of those that it lists, if any is served."""
        names = list(self.pool.names())
        return [name for name in names if name in key.models] or names

    def route(self, question: str, key: Key) -> tuple[str | None, RoutedChoice | None]:
        """The model for a question of a key by the router, with the choice; None where there is nothing to choose.

        Nothing is chosen where the key may use one of the router's models alone: that. Raises Failure where no two of
        them are served.
        """
        if self.router is None:
            return None, None
        try:
            self.router.check([self.pool.called(name) for name in self.pool.names()])
        except BadInput as error:
            raise Failure(503, str(error), code="router_models", retry_after=5.0) from None
        names = self.names(key)
        at_hand = [self.pool.called(name) for name in names]
        places = self.router.places(at_hand)
        if len(places) < 2:
            return next((names[place] for place in places.values()), None), None
        choice = self.router.choose(question, at_hand)
        return names[choice.place], choice

    def facts(self, model: str) -> Facts:
        """What refusals and replies have shown of a model's servers; how a length is called as in `rules`."""
        facts = self._facts.setdefault(model, Facts())
        if facts.length_name is None:
            facts.length_name = self.rules(model).length_name
        return facts

    def places(self, model: str) -> Places:
        """The queue for a model; it has as many places as its backends, or `limits.calls` where they have no limit."""
        places = self._places.get(model)
        if places is None:
            pool, most = self.pool, self.limits.calls
            places = self._places[model] = Places(lambda: pool.places(model) or most, of=attrgetter("key"))
        return places

    def _hand_out(self) -> None:
        for places in self._places.values():
            places.move()

    def call_sharing(self, model: str) -> CallSharing | None:
        """Shares calls between samples, where `doctor` has seen every backend of a model count all `n` choices.

        Not where a backend takes only so many calls: a shared one would be more than it seems.
        """
        if self.pool.places(model) is not None or not self.sums_choices(model):
            return None
        return CallSharing(lambda: self._disproved.add(model))

    def sums_choices(self, model: str) -> bool:
        """Whether `doctor` has seen that `usage` counts all `n` choices, on every backend of a model."""
        findings = self._findings(model) if model not in self._disproved else []
        return bool(findings) and all(facts.n and facts.usage_sums for facts in findings)

    def rules(self, model: str, *others: str) -> FieldRules:
        """What limited keys may send to a model; how a chat's length is called there as its operator or doctor says.

        Args:
            others: models that may be asked as well, so that the strictest of all their backends holds.
        """
        rules = self.pool.rules(model)
        if more := [each for name in others if name != model for each in self.pool.rules(name).settings]:
            strictest = FieldRules.strictest([*rules.settings, *more])
            rules = replace(strictest, length_name=rules.length_name, lengths=rules.lengths)
        if rules.length_name is None:
            urls, named = self.pool.urls(model), [facts.length_name for facts in self._findings(model)]
            if rules.lengths or any(named):
                found = {url: name for url, name in zip(urls, named, strict=False) if name}
                return rules.named({**found, **dict(rules.lengths)}, len(urls))
            if (learnt := self._facts.get(model)) is not None and learnt.length_name is not None:
                return replace(rules, length_name=learnt.length_name)
        return rules

    def _findings(self, model: str) -> list[Facts]:
        """What `doctor` has found out about each backend of a model."""
        looked, findings = self._found.get(model, (0.0, []))
        if (now := monotonic()) >= looked:
            folder, urls = cache_dir() / "servers", self.pool.urls(model)
            findings = [recall(file_for(folder, Address.parse(url).base, model)) for url in urls]
            self._found[model] = now + _FRESH, findings
        return findings

    def check_budget(self, model: str, budget: Budget) -> None:
        """Refuse a budget in a currency that nobody can count for a model. Raises Failure."""
        tariff = self.tariffs.bound(model)
        if budget.usd is not None and tariff.price is None:
            raise unknown_cost("outthink.budget", model, "dollars", "the budget limits them")
        if budget.joules is not None and tariff.energy is None:
            raise unknown_cost("outthink.budget", model, "joules", "the budget limits them")

    def why_no_backend(self, model: str, key: str = "") -> NoBackend | None:
        """Why no backend of a model can be asked now by a key, or as soon as it has a place; None if one can."""
        try:
            self.pool.choose(model, brief=True, key=key)
        except NoBackend as error:
            return error
        return None


class ChosenPolicy(NamedTuple):
    """The policy that decides for a request, and the one that is only asked what it would have done."""

    policy: Policy | None
    shadow: Policy | None = None


@dataclass(slots=True)
class Comparison:
    """What a shadow policy would have done differently. Tokens are predicted, of requests where both are known."""

    agreed: int = 0
    differed: int = 0
    refused: int = 0
    active_tokens: float = 0.0
    shadow_tokens: float = 0.0

    def add(self, active: Plan, shadow: Plan) -> None:
        """One request."""
        if active.name == shadow.name:
            self.agreed += 1
        else:
            self.differed += 1
        tokens, others = predicted(active), predicted(shadow)
        if tokens is not None and others is not None:
            self.active_tokens += tokens
            self.shadow_tokens += others


class Policies:
    """The active policy of `outthink/auto`, and a candidate that is tried in the shadow or on a share first.

    Files are read again when they change; one that cannot be used leaves the one before it at work.

    Args:
        file: of the active one, None for none.
        candidate: of the other one.
        share: part of the requests that the candidate decides; the others it shadows.

    Raises BadInput for a file that is no policy.
    """

    def __init__(self, file: Path | None = None, candidate: Path | None = None, share: float = 0.0) -> None:
        self.share = share
        self.compared = Comparison()
        self._files = {name: path for name, path in (("active", file), ("candidate", candidate)) if path is not None}
        self._seen = {name: _mark(path) for name, path in self._files.items()}
        self._loaded = {name: Policy.load(path) for name, path in self._files.items()}
        self._problems: dict[str, str] = {}
        self.router: str | None = None
        """Who chooses the model of a request, which no policy may do too."""
        self._verifier: str | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> Policy | None:
        """The policy in use."""
        return self._loaded.get("active")

    @property
    def candidate(self) -> Policy | None:
        """The policy that is tried."""
        return self._loaded.get("candidate")

    def check_verifier(self, id: str) -> None:
        """Refuse a verifier, or later a policy, where one was calibrated with another. Raises BadInput."""
        for policy in self._loaded.values():
            need_same_verifier(id, policy)
        self._verifier = id

    @property
    def verifiers(self) -> dict[str, list[str]]:
        """Ids of the verifiers that the policies carry, by policy."""
        return {policy.id: sorted(policy.verifiers) for policy in self._loaded.values() if policy.verifiers}

    @property
    def models(self) -> set[str]:
        """Models that the policies draw from besides the one that a request names."""
        arms = (arm for policy in self._loaded.values() for task in policy.tasks for arm in task.arms)
        return {name for arm in arms for name in arm.rule.models}

    @property
    def problem(self) -> str | None:
        """Why a changed file is not used, in one line; None where all are."""
        return "; ".join(self._problems.values()) or None

    def choose(self, request: str) -> ChosenPolicy:
        """Who decides for a request: always the same for one id."""
        candidate = self.candidate
        if candidate is None:
            return ChosenPolicy(self.active)
        if zlib.crc32(request.encode()) < self.share * _PARTS:
            return ChosenPolicy(candidate)
        return ChosenPolicy(self.active, candidate)

    async def start(self) -> None:
        """Watch the files from now on."""
        if self._files:
            self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Watch them no longer."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def reload(self, *, all: bool = False) -> None:
        """Read the files that have changed, or all of them."""
        for name, path in self._files.items():
            mark = _mark(path)
            if mark == self._seen[name] and not all:
                continue
            self._seen[name] = mark  # also of a file that turns out broken, which is then read and reported once
            try:
                loaded = await asyncio.to_thread(Policy.load, path)
                if self.router is not None:
                    need_one_chooser(self.router, loaded)
                if self._verifier is not None:
                    need_same_verifier(self._verifier, loaded)
            except (BadInput, RecursionError) as error:
                self._problems[name] = f"{error}; {self._loaded[name].id} stays"
                _log.error("the %s policy was not read again: %s", name, error)
                continue
            self._problems.pop(name, None)
            if loaded.id != self._loaded[name].id:
                _log.info("the %s policy is now %s", name, loaded.id)
                self._loaded[name] = loaded
                self.compared = Comparison()  # the counts are of another pair of policies

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_EVERY)
            await self.reload()


def predicted(plan: Plan) -> float | None:
    """Tokens that a plan is expected to use, None where nobody knows."""
    option = next((option for option in plan.options if plan.arm is not None and option.arm.n == plan.arm.n), None)
    return None if option is None else option.usage["tokens"]


def _mark(path: Path) -> tuple[int, int, int] | None:
    """Tells a file from what it was before; None where there is none, as for a moment while it is replaced."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
