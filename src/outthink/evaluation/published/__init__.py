"""Data files as they are published: their rows, which column means what, and the problems they hold.

Knows the containers (JSON lines, a JSON array, CSV, Parquet, each also gzipped) and the published forms. Does not know
how a problem is asked, graded or recorded.
"""
