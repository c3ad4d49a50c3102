"""`Registry`: a schema registry over HTTP, for tests; it keeps schemas and checks nothing of them."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NO_SUBJECT, NO_SCHEMA = 40401, 40403


class Registry(ThreadingHTTPServer):
    """A schema registry.

    Args:
        schemas: What it knows from the start: bodies of requests. The first one has the number 1.

    Attributes:
        url: Where it is.
        asked: How many requests have come.
        registered: For which subjects schemas have been registered, in order.
    """

    daemon_threads = True

    def __init__(self, *schemas):
        super().__init__(("127.0.0.1", 0), _Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.asked, self.registered = 0, []
        self._schemas, self._subjects = list(schemas), {}

    def register(self, subject, schema):
        """Add a version of a subject; the same schema has the same number everywhere."""
        if schema not in self._schemas:
            self._schemas.append(schema)
        versions = self._subjects.setdefault(subject, [])
        if schema not in versions:
            versions.append(schema)
        self.registered.append(subject)
        return self.version(subject, schema)

    def version(self, subject, schema):
        """Return what is known of a schema below a subject."""
        if subject not in self._subjects:
            return _unknown(NO_SUBJECT, f"Subject '{subject}' not found.")
        if schema not in self._subjects[subject]:
            return _unknown(NO_SCHEMA, "Schema not found")
        number = self._schemas.index(schema) + 1
        version = self._subjects[subject].index(schema) + 1
        return {"id": number, "version": version, "subject": subject, **schema}

    def schema(self, number):
        """Return the schema of a number."""
        if not 0 < number <= len(self._schemas):
            return _unknown(NO_SCHEMA, f"Schema {number} not found")
        return self._schemas[number - 1]

    def latest(self, subject):
        """Return the last version of a subject."""
        return self.version(subject, self._subjects.get(subject, [None])[-1])


def _unknown(code, message):
    return {"error_code": code, "message": message}


class _Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        schema = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        _, _, subject, *versions = self._path()
        server = self.server
        self._answer((server.register if versions else server.version)(subject, schema))

    def do_GET(self):
        match self._path()[1:]:
            case ["schemas", "ids", number]:
                self._answer(self.server.schema(int(number)))
            case ["subjects", subject, "versions", "latest"]:
                self._answer(self.server.latest(subject))
            case _:  # newer clients ask for more, and do without
                self._answer(_unknown(404, f"no {self.path}"))

    def _path(self):
        self.server.asked += 1
        return self.path.partition("?")[0].split("/")

    def _answer(self, answer):
        body = json.dumps(answer).encode()
        self.send_response(404 if "error_code" in answer else 200)
        self.send_header("Content-Type", "application/vnd.schemaregistry.v1+json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def running(registry):
    """Let a registry answer until the block is done."""
    thread = threading.Thread(target=registry.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield registry
    finally:
        registry.shutdown()
        thread.join()
        registry.server_close()
