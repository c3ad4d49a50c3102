"""Random SIGKILLs among producers and consumers of one queue, with everything accounted for.

Each producer numbers its messages and notes, in memory that outlives it, how many puts have
returned; each consumer notes what it got. Whoever is killed is replaced. When the survivors have
finished:

* no message is corrupt, none was delivered twice, each consumer saw each producer's in order;
* each message whose put had returned was delivered, except those that a killed consumer had taken
  and could not note any more: at most one batch per killed consumer;
* nobody hangs, no wake-up was missed, and the queue is empty.

Run at length: `python -m transport.kill_fuzz --rounds N` with `tests` on PYTHONPATH.
"""

from __future__ import annotations

import argparse
import mmap
import os
import random
import struct
import tempfile
import time
import zlib
from dataclasses import dataclass, field

from sage.common.errors import QueueClosedError
from sage.kernel.transport import queue_files
from sage.kernel.transport.sage_queue import SageQueue, remove_queue
from transport.processes import Child

HEADER = struct.Struct("<III")  # producer, number, crc of the body
BATCH = 8
LOG_RECORDS = 1 << 20
HANG = 20.0


@dataclass
class Tally:
    """What the rounds so far have seen."""

    rounds: int = 0
    kills: int = 0
    acknowledged: int = 0
    delivered: int = 0
    lost_with_consumers: int = 0
    recoveries: int = 0
    orphans: int = 0


def message_of(producer: int, number: int, lengths: list[int]) -> list[bytes]:
    """Return a message's parts; its body follows from its number, so any mix-up shows."""
    length = lengths[(producer * 7919 + number) % len(lengths)]
    body = bytes([(producer + number) % 256]) * length
    return [HEADER.pack(producer, number, zlib.crc32(body)), body]


def check_message(message: bytes) -> tuple[int, int]:
    """Return producer and number of an intact message."""
    producer, number, crc = HEADER.unpack_from(message)
    assert zlib.crc32(message[HEADER.size :]) == crc, "corrupt message"
    return producer, number


def produce(name: str, producer: int, count: int, lengths: list[int], acks: memoryview) -> None:
    """Put `count` messages, singly and in batches, noting each put that has returned."""
    with SageQueue.open(name) as queue:
        number = 0
        while number < count:
            batch = [message_of(producer, n, lengths) for n in range(number, number + BATCH)]
            if number % 3 == 0:
                number += queue.put_many([b"".join(parts) for parts in batch])
            else:
                queue.put_parts(batch[0])
                number += 1
            acks[producer] = number


def consume(name: str, log: memoryview) -> None:
    """Get until the queue is shut down and empty, noting each message."""
    with SageQueue.open(name) as queue:
        while True:
            try:
                batch = queue.get_many(BATCH) if log[0] % 3 else [queue.get()]
            except QueueClosedError:
                return
            for message in batch:
                producer, number = check_message(message)
                log[1 + log[0]] = producer << 32 | number
                log[0] += 1


def shared_words(count: int) -> memoryview:
    """Return zeroed 64-bit words that forked children share."""
    return memoryview(mmap.mmap(-1, count * 8)).cast("Q")


@dataclass
class Round:
    """One queue, its crowd, and the book-keeping."""

    random: random.Random
    kills: int
    queue: SageQueue
    lengths: list[int]
    acks: memoryview = field(default_factory=lambda: shared_words(1 << 12))
    logs: list[memoryview] = field(default_factory=list)
    producers: list[Child] = field(default_factory=list)
    consumers: list[Child] = field(default_factory=list)
    producer_count: int = 0
    killed_consumers: int = 0

    def add_producer(self, count: int) -> None:
        """Start a producer; one that will not finish by itself, if `count` is large."""
        arguments = (self.queue.name, self.producer_count, count, self.lengths, self.acks)
        self.producers.append(Child(produce, *arguments))
        self.producer_count += 1

    def add_consumer(self) -> None:
        """Start a consumer."""
        self.logs.append(shared_words(LOG_RECORDS))
        self.consumers.append(Child(consume, self.queue.name, self.logs[-1]))

    def kill_one(self) -> None:
        """Let the crowd run for a moment, then kill one of it and add another."""
        crowd = self.random.choice([self.producers, self.consumers])
        victim = crowd.pop(self.random.randrange(len(crowd)))
        ended = victim.has_ended(self.random.expovariate(1 / 0.004))
        assert not ended, "a producer or consumer failed"
        victim.kill()
        if crowd is self.producers:
            self.add_producer(1 << 30)
        else:
            self.killed_consumers += 1
            self.add_consumer()

    def run(self) -> None:
        """Kill, then end: new producers that finish, shutdown, and consumers that drain."""
        for _ in range(self.random.randint(1, 3)):
            self.add_producer(1 << 30)
        for _ in range(self.random.randint(1, 3)):
            self.add_consumer()
        for _ in range(self.kills):
            self.kill_one()
        for child in self.producers:
            child.kill()
        self.producers.clear()
        self.add_producer(200)
        assert self.producers[0].wait(HANG) == 0
        self.queue.shutdown()
        for child in self.consumers:
            assert child.wait(HANG) == 0

    def close(self) -> None:
        """Leave nothing behind, also after a failure."""
        for child in self.producers + self.consumers:
            child.kill()

    def account(self, tally: Tally) -> None:
        """Check the books and add them up."""
        logs = [list(log[1 : 1 + log[0]]) for log in self.logs]
        for log in logs:
            last: dict[int, int] = {}
            for record in log:
                assert last.get(record >> 32, -1) < record & 0xFFFFFFFF, "out of order"
                last[record >> 32] = record & 0xFFFFFFFF
        delivered = {record for log in logs for record in log}
        assert len(delivered) == sum(map(len, logs)), "delivered twice"
        promised = {
            producer << 32 | number
            for producer in range(self.producer_count)
            for number in range(self.acks[producer])
        }
        lost = promised - delivered
        assert len(lost) <= self.killed_consumers * BATCH, "acknowledged messages lost"
        figures = self.queue.statistics()
        assert figures["missed_wakes"] == 0, "a sleeper was saved by the belt only"
        assert self.queue.qsize() == 0
        assert self.queue.statistics()["used_bytes"] == 0
        tally.rounds += 1
        tally.kills += self.kills
        tally.acknowledged += len(promised)
        tally.delivered += len(delivered)
        tally.lost_with_consumers += len(lost)
        tally.recoveries += figures["recoveries"]
        tally.orphans += figures["orphans"]


def fuzz_round(seed: int, kills: int, tally: Tally) -> None:
    """Run one round, whose configuration follows from the seed."""
    dice = random.Random(seed)
    name = f"fuzz-{seed}"
    capacity = dice.choice([1 << 12, 1 << 16, 1 << 20])
    longest = dice.choice([50, 3000, 200_000])
    lengths = [dice.randint(0, min(longest, capacity // 2)) for _ in range(31)]
    with SageQueue.create(name, capacity) as queue:
        round_ = Round(dice, kills, queue, lengths)
        try:
            round_.run()
            round_.account(tally)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}; {queue.statistics()}") from error
        finally:
            round_.close()
    remove_queue(name)


def main() -> None:
    """Fuzz and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=40, help="kills per round")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    tally, start = Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory:
        os.environ[queue_files.DIRECTORY_VARIABLE] = directory
        for seed in range(options.seed, options.seed + options.rounds):
            fuzz_round(seed, options.kills, tally)
    print(f"{time.monotonic() - start:.1f} s: {tally}")


if __name__ == "__main__":
    main()
