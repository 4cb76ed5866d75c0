"""What runs a network: Keras itself, or another runtime that its layers are converted to."""
