"""Networks fitted to annotated photos."""
