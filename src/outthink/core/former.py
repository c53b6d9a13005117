"""Modules that documentation has named and that lie elsewhere now: their names work for one version, with a warning.

Knows old modules and what is public of them today. Looked at only when an import has found nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader
else:
    Loader = object  # importing it takes 35 ms, and nothing needs it

FORMER = {
    "outthink.api": {"ask": "ask"},
    "outthink.batch": {"BatchResult": "BatchResult", "ask_batch": "ask_batch"},
    "outthink.controller.conformal": {"least_threshold": "least_threshold"},
    "outthink.controller.exchange": {"exchange_value": "exchange_value"},
    "outthink.controller.hardware": {"H200": "H200", "Hardware": "Hardware", "Shape": "Shape"},
    "outthink.controller.latency": {"Load": "LatencyLoad", "plan": "plan_latency"},
    "outthink.core.candidate": {"Candidate": "Candidate"},
    "outthink.core.entry": {"Entry": "Entry"},
    "outthink.core.result": {"Result": "Result", "Verdict": "Verdict"},
    "outthink.evaluation.calibration.source": {"open_source": "open_samples"},
    "outthink.evaluation.caps": {"accuracy_by_cap": "accuracy_by_cap"},
    "outthink.evaluation.difficulty": {},
    "outthink.evaluation.difficulty.data": {"outcomes": "difficulty_outcomes"},
    "outthink.evaluation.difficulty.probe": {"fit_probe": "fit_difficulty_probe"},
    "outthink.evaluation.difficulty.run": {"for_policy": "difficulty_for_policy", "train": "train_difficulty"},
    "outthink.session.asking": {"Asking": "Asking"},
    "outthink.strategies.allocate": {"allocate": "allocate"},
    "outthink.sync": {"ask_sync": "ask_sync"},
}
"""Old modules: their names, and what those are called in `outthink`."""


class _FormerModule(ModuleType):
    """Stands for a module that is gone; each of its names says where it lies now."""

    def __getattr__(self, name: str) -> object:
        public = FORMER[self.__name__].get(name)
        if public is None:
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        warnings.warn(f"{self.__name__}.{name} is outthink.{public} now", DeprecationWarning, stacklevel=2)
        return getattr(import_module("outthink"), public)


class FormerModules(Loader):
    """Finds the modules above, and makes them."""

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        """How to make a module that is gone; None for one that never was."""
        package = any(former.startswith(f"{name}.") for former in FORMER)  # else none below it could be imported
        return ModuleSpec(name, cls(), is_package=package) if name in FORMER else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The stand-in."""
        return _FormerModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""
