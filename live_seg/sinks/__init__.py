"""Sinks of frames: videos, images, JSON Lines and recordings."""
