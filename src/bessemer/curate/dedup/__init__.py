"""Deduplication: by URL, text, similarity and lines, in bounded memory, with evidence for every verdict.

`fingerprints.fingerprint` computes what is needed of each document, in parallel with the rest of curation;
`resolve.find_duplicates` decides over all of them; `marks.Marker` writes the verdicts into the ledger.
Signatures only nominate: `verify` compares the sets themselves (`banding`, `verify`, `clusters`). `exact`
finds equal keys, `cuts` repeated lines, `planted` measures each run, `brake` stops one that goes wrong.
"""
