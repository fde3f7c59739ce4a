"""Shards of a job computed in this process, in place of Ray."""

import pyarrow.parquet as pq

from cluster.sharded_job import Summary


class Serial:
    """Do the shards in this process: what `run_shards` does without Ray, one after the other."""

    def __init__(self) -> None:
        self.workers: list[type] = []

    def __call__(self, worker, config, shards, folder, **_) -> Summary:
        self.workers.append(worker)
        names = {shard.name: f"{shard.name}.parquet" for shard in shards}
        left = [shard for shard in shards if not folder.exists(names[shard.name])]
        made = worker(config)
        for shard in left:
            pq.write_table(made(shard.items), f"{folder.path}/{names[shard.name]}")
        errors = sum(pq.read_table(f"{folder.path}/{name}")["error"].drop_null().length() for name in names.values())
        rows, skipped = (
            sum(shard.num_items for shard in some)
            for some in (shards, [shard for shard in shards if shard not in left])
        )
        return Summary(rows, errors, skipped, 0.0)
