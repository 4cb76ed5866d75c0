"""Instances moved from frame to frame along the motion of the picture."""
