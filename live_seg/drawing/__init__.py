"""Annotations and effects drawn on one image."""
