"""Instances over time: given steady ids, smoothed, retained."""
