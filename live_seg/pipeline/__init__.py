"""Threads from source to results: channels, batches, keyframes, and the run loop."""
