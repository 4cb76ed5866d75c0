"""Models measured on annotated photos."""
