"""The engine for OpenAI-compatible chat servers, and what it takes to examine one."""

from outthink.engines.openai.doctor import Finding, Report, examine
from outthink.engines.openai.engine import OpenAIEngine
from outthink.engines.openai.facts import Facts

__all__ = [
    "Facts",
    "Finding",
    "OpenAIEngine",
    "Report",
    "examine",
]
