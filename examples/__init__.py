"""Runnable examples, each with real weights and real pictures."""
