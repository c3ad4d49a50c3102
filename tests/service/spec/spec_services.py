"""What the requirement documents leave to the reader: the services that they call."""

from __future__ import annotations

import os


class CacheService:
    """`CacheService` of spec 001."""

    def __init__(self, cache_size):
        self.cache_size = cache_size
        self.entries = {}

    def get(self, key):
        return self.entries.get(key)

    def set(self, key, value):
        self.entries[key] = value

    def health_check(self):
        return True


class DatabaseService:
    """`DatabaseService` of spec 001."""

    def __init__(self, connection_string):
        self.connection_string = connection_string

    def query(self, text):
        return f"row of {text}"

    def batch_query(self, texts):
        return [self.query(text) for text in texts]

    def health_check(self):
        return False


class SlowService:
    """Takes longer than its callers wait."""

    def __init__(self, held):
        self.held = held

    def heavy_operation(self, data):
        with open(self.held, "rb", buffering=0) as pipe:  # until the test lets go
            pipe.read(1)
        return data


class ExternalApi:
    """Is not there."""

    def __init__(self, message="connection refused"):
        self.message = message

    def call(self, data):
        raise ConnectionError(self.message)


class Flaky:
    """Fails the first times."""

    def __init__(self, times):
        self.left = times

    def fetch(self, value, suffix=""):
        if self.left:
            self.left -= 1
            raise ConnectionError("connection refused")
        return f"{value}{suffix}"


class MyService:
    """`my_service` of spec 004; its method has a `timeout` of its own."""

    def process_data(self, data, timeout=None):
        return data, timeout

    def process(self, request):
        return request.method_name, request.args

    def pid(self):
        return os.getpid()
