"""What needs the original packages: run in `.venv-official` by `make parity-official`."""
