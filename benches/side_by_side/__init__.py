"""Redis directly, and through tideover and its peers, measured in turn on one machine: see `main.py`."""
