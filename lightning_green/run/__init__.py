"""One run in one process: session, fit, decisions at batch boundaries, loggers, signals."""
