"""Measuring models: bits per byte, questions answered, statistics with intervals."""
