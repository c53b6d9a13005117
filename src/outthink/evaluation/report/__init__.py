"""Tables, charts and pages of comparison rows. Does not know where rows come from."""
