"""Other libraries' buffers and ours, of the same exemplars: `python -m bench.buffers PEER`, where it is installed."""
