"""Strategies: each a paper's algorithm over the session, and nothing else.

Importing this package registers them; the order here is the order of every table.
"""

from outthink.strategies.single import greedy, single  # isort: skip
from outthink.strategies.self_consistency import self_consistency  # isort: skip
from outthink.strategies.adaptive_consistency import adaptive_consistency  # isort: skip
from outthink.strategies.esc import esc  # isort: skip
from outthink.strategies.short_m_of_k import short_m_of_k  # isort: skip
from outthink.strategies.best_of_n import best_of_n  # isort: skip
from outthink.strategies.borda import borda  # isort: skip
from outthink.strategies.confidence_vote import confidence_vote  # isort: skip
from outthink.strategies.deepconf import deepconf, deepconf_online  # isort: skip
from outthink.strategies.registry import Spec, Strategy, strategies, strategy
from outthink.strategies.style import STYLES, apply_style
from outthink.strategies.votes import Votes, leader_probability

__all__ = [
    "STYLES",
    "Spec",
    "Strategy",
    "Votes",
    "adaptive_consistency",
    "apply_style",
    "best_of_n",
    "borda",
    "confidence_vote",
    "deepconf",
    "deepconf_online",
    "esc",
    "greedy",
    "leader_probability",
    "self_consistency",
    "short_m_of_k",
    "single",
    "strategies",
    "strategy",
]
