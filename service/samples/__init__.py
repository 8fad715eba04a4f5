"""The clip that the first `curl` line sends."""
