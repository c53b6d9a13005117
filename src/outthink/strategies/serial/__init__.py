"""Serial strategies: one trace, or attempts one after another, instead of many samples side by side."""
