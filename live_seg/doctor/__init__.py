"""Whether this machine has what live_seg needs, and the way out where it has not."""
