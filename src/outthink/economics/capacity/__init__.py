"""How many GPUs a workload needs: what requests hold, ceilings, plans, traces."""
