"""Reward models in this process, through transformers; torch is imported when one is opened.

Knows: what other rooms may use. Does not know how it works.
"""

from outthink.verifiers.reward_model.formats import FORMATS
from outthink.verifiers.reward_model.opening import open_reward_model
from outthink.verifiers.reward_model.verifier import RewardModelVerifier

__all__ = ["FORMATS", "RewardModelVerifier", "open_reward_model"]
