"""Text ↔ token ids: training a byte-level BPE, the chat template with its one renderer, token shards."""
