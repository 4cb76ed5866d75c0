"""Networks fitted to annotated photos, and measured on them."""
