"""A live session on a screen: the window, what is drawn over it, what its keys do."""
