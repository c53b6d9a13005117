"""Mathematics: which formula of a text is the answer, and when two formulas are one answer."""
