"""Events of a live session: what triggers them, and where they are sent."""
