"""Check that this machine has what live_seg needs, and name a remedy for everything that is missing."""
