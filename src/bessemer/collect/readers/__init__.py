"""Reading local files of every kind into pages: one module a kind, all with one contract.

A reader is a generator over `Page` and `Fault`. It never raises for what a file holds: whatever cannot
be read becomes a fault that names its place, and all else is still given. Kinds whose parsers run
through untrusted structure in Python (PDF, EPUB) are read in a child process with limits on processor
time and memory; see `guarded`.
"""
