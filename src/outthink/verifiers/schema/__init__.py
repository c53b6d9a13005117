"""JSON against a JSON schema: the rules, and the process in which they may take their time."""
