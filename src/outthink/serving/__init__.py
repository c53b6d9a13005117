"""The proxy: OpenAI's protocol in front of model servers, with strategies, budgets and a ledger behind it."""
