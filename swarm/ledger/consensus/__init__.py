"""Agreement among the network nodes. Start reading in `algorithm.py`, then `core.py`."""
