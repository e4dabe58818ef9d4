"""Files scored: read in chunks, predicted on all cores, written once. Layer L3."""
