"""HTTP with time limits, retries and size limits; credentials that are never printed."""
