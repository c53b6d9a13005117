"""outthink decides how much an LLM should think about each request, and returns the answer with a receipt.

    import outthink as ot

    result = await ot.ask("What is 17 * 23?", answer="number", budget="tokens=2000,seconds=20")
    result.answer, result.stopped, result.receipt.tokens

This is the public surface: what is not named here may change in any version. Names are loaded on first use, so that
importing the package costs next to nothing.
"""

import sys
import warnings
from importlib import import_module
from typing import TYPE_CHECKING

from outthink.core import __version__
from outthink.core.former import FormerModules

if TYPE_CHECKING:
    from outthink import strategies
    from outthink.client import (
        AskEvent,
        BatchOptions,
        BatchResult,
        Client,
        Options,
        SyncClient,
        ask,
        ask_batch,
        ask_sync,
    )
    from outthink.controller.allocation import split as split_budget
    from outthink.controller.cascade import Cascade, Stage, least_threshold
    from outthink.controller.online import Arm, Learner
    from outthink.controller.online import Settings as LearnerSettings
    from outthink.controller.policy.artefact import Policy
    from outthink.controller.policy.rules import rule_from_json
    from outthink.controller.router.artefact import load as load_predictor
    from outthink.controller.router.predictor import Predictor
    from outthink.controller.router.probe import Probe
    from outthink.controller.routing_rules import penalised, smallest_likely, strong_weak
    from outthink.core.errors import BadInput, EngineError, OutthinkError, Unsupported
    from outthink.core.model_shape import ModelShape
    from outthink.core.receipt import Entry, Receipt, Result, Verdict
    from outthink.core.request import Budget, Message, Request, Sampling
    from outthink.core.sample import Candidate, Judged, Sample
    from outthink.economics.gpus import GPUS, H200, Gpu, find_gpu
    from outthink.economics.hardware import Hardware, Shape, exchange_value
    from outthink.economics.latency import Load as LatencyLoad
    from outthink.economics.latency import plan as plan_latency
    from outthink.economics.price import Price
    from outthink.economics.roofline import KVRoom, RooflineStep, kv_capacity, step_roofline
    from outthink.economics.step_profile import StepProfile
    from outthink.economics.tariff import Energy
    from outthink.engines.embedded import EmbeddedEngine
    from outthink.engines.openai import OpenAIEngine
    from outthink.engines.protocol import Call, Delta, Engine, Event, Fault, Features, Finish, Speed
    from outthink.engines.scripted import Completion, ScriptedEngine
    from outthink.engines.shapes import read_shape
    from outthink.engines.traces import ReplayEngine, Traces
    from outthink.engines.traces import load as load_traces
    from outthink.evaluation.calibration.run import CalibrationRecipe, calibrate
    from outthink.evaluation.calibration.target import Target
    from outthink.evaluation.compare import CompareSettings, compare
    from outthink.evaluation.dataset import Dataset, open_dataset
    from outthink.evaluation.dataset import open_source as open_samples
    from outthink.evaluation.gains import accuracy_by_cap
    from outthink.evaluation.record import Recording, record
    from outthink.evaluation.report.html import render as report_html
    from outthink.evaluation.report.plot import draw as report_svg
    from outthink.evaluation.report.terminal import terminal_plot as report_text
    from outthink.evaluation.routing.probes import fit_probe as fit_difficulty_probe
    from outthink.evaluation.routing.samples import for_policy as difficulty_for_policy
    from outthink.evaluation.routing.samples import outcomes as difficulty_outcomes
    from outthink.evaluation.routing.samples import train as train_difficulty
    from outthink.session.scoring import Asking
    from outthink.session.session import Session
    from outthink.strategies import Spec, Votes, strategy
    from outthink.strategies.voting import allocate
    from outthink.training.prompt_states import prompt_states
    from outthink.verifiers import ConfidenceVerifier, ExactVerifier, FunctionVerifier, JudgeVerifier, Score, Verifier

_HOMES = {
    "client": "AskEvent BatchOptions BatchResult Client Options SyncClient ask ask_batch ask_sync",
    "controller.allocation": "split=split_budget",
    "controller.cascade": "Cascade Stage least_threshold",
    "controller.online": "Arm Learner Settings=LearnerSettings",
    "controller.policy.artefact": "Policy",
    "controller.policy.rules": "rule_from_json",
    "controller.router.artefact": "load=load_predictor",
    "controller.router.predictor": "Predictor",
    "controller.router.probe": "Probe",
    "controller.routing_rules": "penalised smallest_likely strong_weak",
    "core.errors": "BadInput EngineError OutthinkError Unsupported",
    "core.model_shape": "ModelShape",
    "core.receipt": "Entry Receipt Result Verdict",
    "core.request": "Budget Message Request Sampling",
    "core.sample": "Candidate Judged Sample",
    "economics.gpus": "GPUS H200 Gpu find_gpu",
    "economics.hardware": "Hardware Shape exchange_value",
    "economics.latency": "Load=LatencyLoad plan=plan_latency",
    "economics.price": "Price",
    "economics.roofline": "KVRoom RooflineStep kv_capacity step_roofline",
    "economics.step_profile": "StepProfile",
    "economics.tariff": "Energy",
    "engines.embedded": "EmbeddedEngine",
    "engines.openai": "OpenAIEngine",
    "engines.protocol": "Call Delta Engine Event Fault Features Finish Speed",
    "engines.scripted": "Completion ScriptedEngine",
    "engines.shapes": "read_shape",
    "engines.traces": "ReplayEngine Traces load=load_traces",
    "evaluation.calibration.run": "CalibrationRecipe calibrate",
    "evaluation.calibration.target": "Target",
    "evaluation.compare": "CompareSettings compare",
    "evaluation.dataset": "Dataset open_dataset open_source=open_samples",
    "evaluation.gains": "accuracy_by_cap",
    "evaluation.record": "Recording record",
    "evaluation.report.html": "render=report_html",
    "evaluation.report.plot": "draw=report_svg",
    "evaluation.report.terminal": "terminal_plot=report_text",
    "evaluation.routing.probes": "fit_probe=fit_difficulty_probe",
    "evaluation.routing.samples": "for_policy=difficulty_for_policy outcomes=difficulty_outcomes "
    "train=train_difficulty",
    "session.scoring": "Asking",
    "session.session": "Session",
    "strategies": "Spec Votes strategy",
    "strategies.voting": "allocate",
    "training.prompt_states": "prompt_states",
    "verifiers": "ConfidenceVerifier ExactVerifier FunctionVerifier JudgeVerifier Score Verifier",
}
"""Modules, and the names in them that are public; `inner=public` where the two differ."""

_FORMER = {
    "Difficulty": "Predictor",
    "load_choice_router": "load_predictor",
    "load_difficulty": "load_predictor",
    "load_router": "load_predictor",
}
"""Names of the version before, and what is called for them now; they go with the next version."""

_PLACES = {
    name.rpartition("=")[2]: (module, name.partition("=")[0])
    for module, names in _HOMES.items()
    for name in names.split()
}
__all__ = [
    "GPUS",
    "H200",
    "Arm",
    "AskEvent",
    "Asking",
    "BadInput",
    "BatchOptions",
    "BatchResult",
    "Budget",
    "CalibrationRecipe",
    "Call",
    "Candidate",
    "Cascade",
    "Client",
    "CompareSettings",
    "Completion",
    "ConfidenceVerifier",
    "Dataset",
    "Delta",
    "EmbeddedEngine",
    "Energy",
    "Engine",
    "EngineError",
    "Entry",
    "Event",
    "ExactVerifier",
    "Fault",
    "Features",
    "Finish",
    "FunctionVerifier",
    "Gpu",
    "Hardware",
    "JudgeVerifier",
    "Judged",
    "KVRoom",
    "LatencyLoad",
    "Learner",
    "LearnerSettings",
    "Message",
    "ModelShape",
    "OpenAIEngine",
    "Options",
    "OutthinkError",
    "Policy",
    "Predictor",
    "Price",
    "Probe",
    "Receipt",
    "Recording",
    "ReplayEngine",
    "Request",
    "Result",
    "RooflineStep",
    "Sample",
    "Sampling",
    "Score",
    "ScriptedEngine",
    "Session",
    "Shape",
    "Spec",
    "Speed",
    "Stage",
    "StepProfile",
    "SyncClient",
    "Target",
    "Traces",
    "Unsupported",
    "Verdict",
    "Verifier",
    "Votes",
    "__version__",
    "accuracy_by_cap",
    "allocate",
    "ask",
    "ask_batch",
    "ask_sync",
    "calibrate",
    "compare",
    "difficulty_for_policy",
    "difficulty_outcomes",
    "exchange_value",
    "find_gpu",
    "fit_difficulty_probe",
    "kv_capacity",
    "least_threshold",
    "load_predictor",
    "load_traces",
    "open_dataset",
    "open_samples",
    "penalised",
    "plan_latency",
    "prompt_states",
    "read_shape",
    "record",
    "report_html",
    "report_svg",
    "report_text",
    "rule_from_json",
    "smallest_likely",
    "split_budget",
    "step_roofline",
    "strategies",
    "strategy",
    "strong_weak",
    "train_difficulty",
]

sys.meta_path.append(FormerModules)


if not TYPE_CHECKING:  # to a type checker, a name that is not listed above is an error

    def __getattr__(name: str) -> object:
        if name == "strategies":
            return import_module(f"{__name__}.strategies")
        if name in _FORMER:
            warnings.warn(f"outthink.{name} is outthink.{_FORMER[name]} now", DeprecationWarning, stacklevel=2)
            return __getattr__(_FORMER[name])
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, inner = _PLACES[name]
        value = getattr(import_module(f"{__name__}.{module}"), inner)
        globals()[name] = value  # found without this function from now on
        return value


def __dir__() -> list[str]:
    return __all__
