"""Measure the speed of a model on this machine, by stage and end to end."""
