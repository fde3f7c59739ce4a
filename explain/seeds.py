"""Seeds of random methods: one for each image, whatever the batch or the order."""

import hashlib


def image_seed(seed: int, image_id: str, method: str) -> int:
    """Derive the seed of one image's map from (seed, image_id, method): neither batch nor order matters."""
    digest = hashlib.sha256(f"{seed}\n{image_id}\n{method}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1  # torch's generators take a signed 64-bit seed
