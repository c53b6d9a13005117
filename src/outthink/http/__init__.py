"""HTTP to model servers: moving bytes, reading server-sent events, and wording refusals.

Knows how OpenAI-compatible servers write streams and errors. Does not know prompts, sampling or what
a completion means; engines, remote verifiers and the proxy build on it.
"""
