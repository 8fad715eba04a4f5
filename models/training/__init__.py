"""What trains and judges: `losses.py`, `metrics.py`, and the recipes that use both."""
