"""MLflow's pages of this machine's store, to look at: on loopback, and nothing can be written through them.

MLflow's own server takes requests of every user of the machine, and `upload-artifact` writes files even where
`--no-serve-artifacts` is given. Here only requests that read are passed on.
"""

import os
import re
import socket
import warnings
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

from cluster.tracking.run_store import SQLITE, RunStore, runs_page
from cluster.tracking.tracker import tracking_uri

HOST = "127.0.0.1"
READS = ("GET", "HEAD", "OPTIONS")
QUERIES = re.compile(r"/(search[a-z-]*|graphql|batchGetInfos)\Z")
"""Ends of the paths of requests that read although they are POST."""
REFUSED = (
    b'{"error_code": "PERMISSION_DENIED", "message": "these pages are for reading; jobs write to the store itself"}'
)
Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Any, Send], Awaitable[None]]


def reading_only(app: App) -> App:
    """Wrap an ASGI application: what could write is answered with 403 and does not reach it."""

    async def guarded(scope: Scope, receive: Any, send: Send) -> None:
        if scope["type"] == "lifespan" or (scope["type"] == "http" and reads(scope["method"], scope["path"])):
            await app(scope, receive, send)
        elif scope["type"] == "http":
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSED})

    return guarded


def reads(method: str, path: str) -> bool:
    """Tell whether a request can only read."""
    return method in READS or (method == "POST" and QUERIES.search(path) is not None)


def serve(port: int) -> None:
    """Show the store that MLFLOW_TRACKING_URI names, else `mlflow.db` in this folder, until interrupted.

    Raises:
        ValueError: there is no such store, it is a server itself, or the port is taken.
    """
    uri = tracking_uri()
    if "://" not in uri or uri.startswith(("http://", "https://")):
        raise ValueError(f"{uri} is a server with pages of its own; open it, or unset MLFLOW_TRACKING_URI")
    if uri.startswith(SQLITE) and not Path(uri.removeprefix(SQLITE)).is_file():
        raise ValueError(f"there is no store {uri}; run a job first, or name one in MLFLOW_TRACKING_URI")
    with socket.socket() as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            tried.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise ValueError(f"port {port} cannot be used ({error}); give another one with --port") from error
    for experiment in RunStore(uri).client.search_experiments():
        print(f"{experiment.name}: {runs_page(f'http://{HOST}:{port}', experiment.experiment_id)}", flush=True)
    import uvicorn

    print("Press Ctrl-C to end.", flush=True)
    uvicorn.run(reading_only(_application(uri)), host=HOST, port=port, log_level="warning")


def _application(uri: str) -> App:
    """Load MLflow's server for a store, with its checks of hosts and origins, and without workers of its own."""
    os.environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"
    os.environ["_MLFLOW_SERVER_FILE_STORE"] = uri  # what `mlflow server --backend-store-uri` sets, before its import
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's own
        from mlflow.server.fastapi_app import app

    return app
