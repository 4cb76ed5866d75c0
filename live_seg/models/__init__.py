"""Models by name or file: known weights, their cards and classes, and loading them."""
