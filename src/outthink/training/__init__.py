"""Training of verifiers: step labels, token batches, the loop, what was learnt and how it is stored."""
