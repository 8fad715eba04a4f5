"""Ours against the reference's golden values: `python -m tests.parity FOLDER [GROUP ...]`.

A group is one golden file, `<group>.npz`, and one module here with `rows(golden)`, which yields one `Row` an
array of that file. A new group is its module and one line in `GROUPS` (`tests/parity/__main__.py`).
"""
