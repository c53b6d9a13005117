"""Replays strategies on recorded samples and reports what accuracy costs. Used by nothing below it."""
