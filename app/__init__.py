"""The dashboard: pages over a run, read and decided about through `curate` alone."""
