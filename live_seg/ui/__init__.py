"""User interface of a live session: window, web page, overlay and keys."""
