"""From recorded samples to a policy: fitting, held-out figures, and what is refused."""
