"""The promises of the service about faults, each broken on purpose against real processes and a real Redis.

`python -m tests.faults` prints one line a promise: what is promised, what was measured, whether it held.
A promise is a function of this package's modules in the table of `__main__.py`; it returns a `Measured`.
"""
