"""What work costs: prices, parameters, energy. Does not know calls, budgets or ledgers."""
