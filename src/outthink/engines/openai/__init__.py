"""The engine for OpenAI-compatible chat servers, and what it takes to examine one."""

from outthink.engines.openai.body import Facts
from outthink.engines.openai.doctor import Finding, Report, examine
from outthink.engines.openai.engine import OpenAIEngine

__all__ = ["Facts", "Finding", "OpenAIEngine", "Report", "examine"]
