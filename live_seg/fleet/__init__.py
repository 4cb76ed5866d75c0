"""Many files and many workers: plan chunks, detect, track, render and join them, and resume what is done."""
