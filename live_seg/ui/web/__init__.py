"""A live session on a web page."""
