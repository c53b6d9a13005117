"""outthink decides how much an LLM should think about each request, and returns the answer with a receipt.

    import outthink as ot

    result = await ot.ask("What is 17 * 23?", answer="number", budget="tokens=2000,seconds=20")
    result.answer, result.stopped, result.receipt.tokens

Names are loaded on first use, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from outthink import strategies
    from outthink.client import AskEvent, BatchResult, Client, Options, SyncClient, ask, ask_batch, ask_sync
    from outthink.core.errors import BadInput, EngineError, OutthinkError, Unsupported
    from outthink.core.receipt import Receipt, Result, Verdict
    from outthink.core.request import Budget, Message, Request, Sampling
    from outthink.core.sample import Sample
    from outthink.economics.price import Price
    from outthink.economics.tariff import Energy
    from outthink.engines.embedded import EmbeddedEngine
    from outthink.engines.openai import OpenAIEngine
    from outthink.engines.scripted import Completion, ScriptedEngine
    from outthink.engines.simulated import Fault, Speed
    from outthink.engines.traces import ReplayEngine
    from outthink.engines.traces import load as load_traces
    from outthink.session.session import Session
    from outthink.strategies import Votes, strategy

__version__ = "0.1.0"

_HOMES = {
    "ask": "client",
    "ask_batch": "client",
    "ask_sync": "client",
    "AskEvent": "client",
    "BatchResult": "client",
    "Client": "client",
    "Options": "client",
    "SyncClient": "client",
    "Budget": "core.request",
    "BadInput": "core.errors",
    "EngineError": "core.errors",
    "OutthinkError": "core.errors",
    "Unsupported": "core.errors",
    "Message": "core.request",
    "Receipt": "core.receipt",
    "Request": "core.request",
    "Result": "core.receipt",
    "Verdict": "core.receipt",
    "Sample": "core.sample",
    "Sampling": "core.request",
    "Energy": "economics.tariff",
    "Price": "economics.price",
    "EmbeddedEngine": "engines.embedded",
    "OpenAIEngine": "engines.openai",
    "ReplayEngine": "engines.traces",
    "Completion": "engines.scripted",
    "ScriptedEngine": "engines.scripted",
    "Fault": "engines.simulated",
    "Speed": "engines.simulated",
    "Session": "session.session",
    "Votes": "strategies",
    "strategy": "strategies",
}

__all__ = [
    "AskEvent",
    "BadInput",
    "BatchResult",
    "Budget",
    "Client",
    "Completion",
    "EmbeddedEngine",
    "Energy",
    "EngineError",
    "Fault",
    "Message",
    "OpenAIEngine",
    "Options",
    "OutthinkError",
    "Price",
    "Receipt",
    "ReplayEngine",
    "Request",
    "Result",
    "Sample",
    "Sampling",
    "ScriptedEngine",
    "Session",
    "Speed",
    "SyncClient",
    "Unsupported",
    "Verdict",
    "Votes",
    "__version__",
    "ask",
    "ask_batch",
    "ask_sync",
    "load_traces",
    "strategies",
    "strategy",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name == "load_traces":
        return import_module(f"{__name__}.engines.traces").load
    if name == "strategies":
        return import_module(f"{__name__}.strategies")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
