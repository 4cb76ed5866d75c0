"""Engines run a network: with Keras itself, or with a runtime that it is converted for."""
