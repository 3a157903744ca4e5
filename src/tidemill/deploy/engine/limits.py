"""How much the engine takes from a caller, and how much of the machine it takes for itself."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one serving process; every one of them has a typed answer when it is met.

    Parameters
    ----------
    header_bytes, body_bytes : int
        Largest head (431) and body (413) of a request.
    bodies_bytes : int
        Bodies of all requests under way together (503), those that are still coming included; never less than one body.
    file_bytes : int
        Largest file, an image for instance, in a request (413).
    image_pixels : int
        Pixels of an image (400); its size is looked at before it is unpacked.
    header_s, body_s : float
        Time until a head and a body must be there (408).
    idle_s : float
        Time after which a connection that says nothing is closed.
    stalled_s : float
        Time after which a connection that does not read its answers is closed.
    connections : int
        Open connections; further ones are answered with 503.
    pipelined : int
        Requests of one connection that may be under way; beyond it nothing is read.
    rows : int
        Rows of one request (413).
    elements : int
        Elements of one tensor (400): the product of its shape is compared before anything is made.
    memory_bytes : int
        What all workers may hold; 0 means four fifths of the machine.
    margin : float
        Share that a worker may hold beyond its measured peak.
    attempts : int
        How often a request is tried when workers die of it; then it fails alone (500).
    hang_floor_s, hang_factor : float
        A worker is ended when a batch takes longer than the factor times what was predicted, and than the floor.
    hang_file_s : float
        How much longer it may take for each file that it must decode.
    start_s : float
        Time in which a worker must have loaded its model.
    queue_rows : int
        Rows that may wait for one model, whatever the deadline (429).
    idempotent_s, idempotent_bytes : float, int
        How long, and up to how many bytes in all, answers are kept for callers that try again.
    drain_s : float
        Time that requests under way have when the server ends.
    """

    header_bytes: int = 16 * 1024
    body_bytes: int = 64 * MIB
    bodies_bytes: int = 256 * MIB
    file_bytes: int = 32 * MIB
    image_pixels: int = 1 << 24
    header_s: float = 10.0
    body_s: float = 60.0
    idle_s: float = 75.0
    stalled_s: float = 30.0
    connections: int = 10_000
    pipelined: int = 64
    rows: int = 100_000
    elements: int = 1 << 26
    memory_bytes: int = 0
    margin: float = 0.5
    attempts: int = 3
    hang_floor_s: float = 2.0
    hang_factor: float = 3.0
    hang_file_s: float = 2.0
    start_s: float = 60.0
    queue_rows: int = 1_000_000
    idempotent_s: float = 600.0
    idempotent_bytes: int = 32 * MIB
    drain_s: float = 30.0
