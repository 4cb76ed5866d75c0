"""Training of networks on annotated photos."""
