"""One module for each kind of artifact: WARC, documents, ledger, token shards, JSON lines.

These are the only readers and writers of their formats; they know nothing of stages.
"""
