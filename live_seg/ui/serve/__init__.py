"""A web server that segments the cameras of its visitors' browsers."""
