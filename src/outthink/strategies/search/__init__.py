"""Tree search over the steps of a solution, guided by a verifier: beams, subtrees, REBASE and MCTS."""
