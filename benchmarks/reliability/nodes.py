"""A Ray cluster of several nodes on one machine: a head without work, and nodes of a core each that can be killed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil

from cluster.session import SEVERAL_MACHINES, guard_token, loopback

AUTH = {"RAY_AUTH_MODE": "token", SEVERAL_MACHINES: "0"}  # on loopback, and for the owner of the token
OBJECT_STORE_BYTES = 100 * 2**20  # of each node


class Nodes:
    """A head that stays, and nodes that come and go."""

    name = "a cluster"

    def __init__(self, cluster: Any, num_nodes: int) -> None:
        """Take `ray.cluster_utils.Cluster` with its head and add nodes."""
        self._cluster, self._num_nodes = cluster, num_nodes
        self.mend()

    def environment(self) -> dict[str, str]:
        """Return what a job needs to find the cluster."""
        return {"RAY_ADDRESS": self._cluster.address, **AUTH}

    def nodes(self, driver: psutil.Process | None = None) -> list[list[psutil.Process]]:
        """List the processes of each node, its raylet first."""
        raylets = [_raylet(node) for node in self._cluster.worker_nodes]
        return [[raylet, *raylet.children(recursive=True)] for raylet in raylets if raylet is not None]

    def add(self) -> None:
        """Add a node."""
        self._cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)

    def mend(self) -> None:
        """Remove what is left of nodes that were killed, and add others in their place."""
        for node in list(self._cluster.worker_nodes):
            if _raylet(node) is None:
                self._cluster.remove_node(node, allow_graceful=False)
        while len(self._cluster.worker_nodes) < self._num_nodes:
            self.add()


@contextmanager
def several_nodes(num_nodes: int) -> Iterator[Nodes]:
    """Run a head and so many nodes while the block runs; they ask for the token of this machine's owner."""
    guard_token()
    os.environ.update(AUTH)
    from ray._raylet import Config
    from ray.cluster_utils import Cluster

    Config.initialize("")  # reads the environment again: Ray may have been imported before
    head = {"num_cpus": 0, "node_ip_address": "127.0.0.1", "include_dashboard": False}
    with loopback():
        cluster = Cluster(initialize_head=True, head_node_args=head | {"object_store_memory": OBJECT_STORE_BYTES})
        try:
            yield Nodes(cluster, num_nodes)
        finally:
            cluster.shutdown()


def _raylet(node: Any) -> psutil.Process | None:
    """Return a node's own process, None where it has ended."""
    (info,) = node.all_processes["raylet"]
    if info.process.poll() is not None:
        return None
    return psutil.Process(info.process.pid)
