"""The command line, ``lightning-green``."""
