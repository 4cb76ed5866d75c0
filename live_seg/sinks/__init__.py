"""Where finished frames go: videos, pictures, JSON Lines, recordings."""
