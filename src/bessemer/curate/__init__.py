"""Curation: archived pages to documents, with a ledger that says what became of every record.

Import what you need from the modules: `stage.curate` runs it all, `config.CurateConfig` configures it,
`why.explain` answers for one document. The parts in the order of the flow: `shards`, `records`,
`extraction`, `language`, `edits`, `measure` (with `kernels`), `rules`, `dedup`.
"""
