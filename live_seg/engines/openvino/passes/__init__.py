"""Rewriting passes: OpenVINO models that compute the same in less time."""
