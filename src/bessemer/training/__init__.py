"""The one training loop and its parts: batches, optimizers, schedules, checkpoints, the stages on it."""
