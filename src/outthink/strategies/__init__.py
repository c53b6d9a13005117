"""Strategies: each a paper's algorithm over the session, and nothing else.

Importing this package registers them; the order here is the order of every table.
"""

from outthink.strategies.voting import greedy, single  # isort: skip
from outthink.strategies.voting import self_consistency  # isort: skip
from outthink.strategies.voting import adaptive_consistency  # isort: skip
from outthink.strategies.voting import esc  # isort: skip
from outthink.strategies.voting import short_m_of_k  # isort: skip
from outthink.strategies.best_of_n import best_of_n  # isort: skip
from outthink.strategies.weighted import borda  # isort: skip
from outthink.strategies.weighted import confidence_vote  # isort: skip
from outthink.strategies.weighted import deepconf, deepconf_online  # isort: skip
from outthink.strategies.weighted import weighted_vote  # isort: skip
from outthink.strategies.search.beam import beam  # isort: skip
from outthink.strategies.search.beam import lookahead  # isort: skip
from outthink.strategies.search.beam import dvts  # isort: skip
from outthink.strategies.search.beam import rebase  # isort: skip
from outthink.strategies.search.mcts import mcts  # isort: skip
from outthink.strategies.serial.length import budget_forcing  # isort: skip
from outthink.strategies.serial.length import early_exit  # isort: skip
from outthink.strategies.serial.revision import revision  # isort: skip
from outthink.strategies.serial.think_with_me import think_with_me  # isort: skip
from outthink.strategies.serial.atoms import atom_of_thoughts  # isort: skip
from outthink.strategies.prompts import STYLES, apply_style
from outthink.strategies.registry import Spec, Strategy, Streams, Traits, strategies, strategy
from outthink.strategies.votes import Votes, leader_probability

__all__ = [
    "STYLES",
    "Spec",
    "Strategy",
    "Streams",
    "Traits",
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
