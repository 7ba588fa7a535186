"""Delivery: the final model folder with its card, the report page of a run, and copies of models."""
