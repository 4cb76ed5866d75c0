"""Models by name or file: known weights, model cards, classes, and `load`."""
