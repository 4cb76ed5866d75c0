"""Instances over time: carried along the motion of the picture, given steady ids, smoothed, held."""
