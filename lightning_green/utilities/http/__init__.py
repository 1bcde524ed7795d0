"""HTTP with time limits, size limits and retries, and credentials that are never printed."""
