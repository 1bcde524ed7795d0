"""What every live service shares: polling, cache, snapshot, staleness."""
