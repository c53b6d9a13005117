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
from outthink.strategies.weighted_vote import weighted_vote  # isort: skip
from outthink.strategies.beam import beam  # isort: skip
from outthink.strategies.lookahead import lookahead  # isort: skip
from outthink.strategies.dvts import dvts  # isort: skip
from outthink.strategies.rebase import rebase  # isort: skip
from outthink.strategies.mcts import mcts  # isort: skip
from outthink.strategies.budget_forcing import budget_forcing  # isort: skip
from outthink.strategies.early_exit import early_exit  # isort: skip
from outthink.strategies.revision import revision  # isort: skip
from outthink.strategies.think_with_me import think_with_me  # isort: skip
from outthink.strategies.atom_of_thoughts import atom_of_thoughts  # isort: skip
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
    "atom_of_thoughts",
    "beam",
    "best_of_n",
    "borda",
    "budget_forcing",
    "confidence_vote",
    "deepconf",
    "deepconf_online",
    "dvts",
    "early_exit",
    "esc",
    "greedy",
    "leader_probability",
    "lookahead",
    "mcts",
    "rebase",
    "revision",
    "self_consistency",
    "short_m_of_k",
    "single",
    "strategies",
    "strategy",
    "think_with_me",
    "weighted_vote",
]
