"""One corpus, many workers: leases, stores that all workers see, and what a worker does with a shard."""
