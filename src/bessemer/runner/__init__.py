"""Run folders: manifests, checksums, atomic outputs, resume, locks, lineage, progress.

The only code that knows how a run lies on disk. Stages see a `StageContext` (context.py) and nothing else.
"""
