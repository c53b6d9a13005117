"""Strategies: each a paper's algorithm over the session, and nothing else.

Importing this package registers them; the order here is the order of every table.
"""

# isort: off
from outthink.strategies.voting import adaptive_consistency, esc, greedy, self_consistency, short_m_of_k, single
from outthink.strategies.best_of_n import best_of_n
from outthink.strategies.weighted import borda, confidence_vote, deepconf, deepconf_online, weighted_vote
from outthink.strategies.search.beam import beam, dvts, lookahead, rebase
from outthink.strategies.search.mcts import mcts
from outthink.strategies.serial.length import budget_forcing, early_exit
from outthink.strategies.serial.revision import revision
from outthink.strategies.serial.think_with_me import think_with_me
from outthink.strategies.serial.atoms import atom_of_thoughts

# isort: on
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
