"""Instances over time: tracking, smoothing and retention."""
