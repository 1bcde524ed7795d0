"""Energy of the job: the meters."""
