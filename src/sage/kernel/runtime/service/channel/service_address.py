"""How the processes of a machine find a service: by names that follow from its address."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from sage.kernel.runtime.service.policy.policy_config import PolicyConfig


@dataclass(frozen=True)
class ServiceAddress:
    """Where a service that runs in processes of its own takes its requests. Can be pickled.

    Attributes:
        token: Stands for the environment; all its queues begin with it.
        number: Which of the environment's services this is.
        name: The name of the service.
        replicas: How many instances there are.
        calls: What is said about its calls.
        queue_timeout: Seconds to wait for room in a full queue; None: until the deadline.
    """

    token: str
    number: int
    name: str
    replicas: int
    calls: PolicyConfig = field(default_factory=PolicyConfig)
    queue_timeout: float | None = None

    def requests(self, replica: int) -> str:
        """Return the name of the queue by which a replica takes requests."""
        return f"{self.token}-s{self.number}-{replica}"

    def control(self, replica: int) -> str:
        """Return the name of the queue by which a replica is told to cancel requests."""
        return f"{self.token}-c{self.number}-{replica}"


def lane_prefix(token: str) -> str:
    """Return how the names of all queues begin by which answers come back."""
    return f"{token}-r"


def lane_name(token: str, number: int) -> str:
    """Return the name of the queue by which answers come back to this process."""
    return f"{lane_prefix(token)}{os.getpid()}-{number}"


def lane_reader(name: str) -> int:
    """Return the id of the process that reads a lane.

    Examples:
        >>> lane_reader(lane_name("sage-0123456789ab", 7)) == os.getpid()
        True
    """
    return int(name.rsplit("-", 2)[1].removeprefix("r"))
