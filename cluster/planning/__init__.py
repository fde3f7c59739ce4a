"""Cost planning: what a job takes in hours, queries and storage, from measured throughput."""
