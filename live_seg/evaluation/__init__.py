"""Evaluation of models on annotated photos."""
