"""Threads from source to results: batches, keyframes, and the run loop."""
