"""Propagation of instances from frame to frame along optical flow."""
