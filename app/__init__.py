"""The dashboard: pages over a run, read through `curate` alone. It arrives in a later release."""
