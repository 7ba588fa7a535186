"""The corpus that every installation carries: Python's and its packages' documentation, served locally.

pydoc's pages are rendered in child processes, served on loopback, and fetched by the same crawler
that fetches the web, so the whole flow from raw pages on can run on a machine without a network.
"""
