"""What all simulated systems share: the event loop, bandwidth, presence, the record, machines. Start in ``loop.py``."""
