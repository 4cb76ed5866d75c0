"""Convert JSON Lines of detections to the formats of other tools."""
