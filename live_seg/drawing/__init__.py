"""Pictures with what was found on them: masks, boxes, labels, effects."""
