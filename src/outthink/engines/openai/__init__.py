"""The engine for OpenAI-compatible chat servers, and what it takes to examine one."""

from outthink.engines.openai.doctor import examine
from outthink.engines.openai.engine import OpenAIEngine
from outthink.engines.openai.facts import Facts
from outthink.engines.openai.report import Finding, Report
from outthink.engines.openai.transport import Reply, Timeouts, Transport, TransportFault

__all__ = ["Facts", "Finding", "OpenAIEngine", "Reply", "Report", "Timeouts", "Transport", "TransportFault", "examine"]
