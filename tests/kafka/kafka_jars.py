"""The jars of Apache Kafka, from Maven Central into a cache of the user's.

`kafka_jars.txt` names them and their SHA-256: Kafka and what Maven says it needs to run. To go to
another version, let Maven write them anew:

    mvn dependency:copy-dependencies -DincludeScope=runtime -Dmdep.useRepositoryLayout=true
"""

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CENTRAL = "https://repo1.maven.org/maven2/"
LIST = Path(__file__).with_suffix(".txt")
NEEDED_JAVA = 17
AT_ONCE = 8


class KafkaUnavailableError(Exception):
    """There is no Java, or the jars cannot be had."""


def java():
    """Return where a Java is that can run Kafka."""
    found = shutil.which("java")
    if found is None:
        raise KafkaUnavailableError(f"no java is installed; Kafka needs {NEEDED_JAVA} or newer")
    told = subprocess.run([found, "-version"], check=True, stderr=subprocess.PIPE, text=True).stderr
    version = re.search(r'version "(\d+)', told)
    if version is None or int(version[1]) < NEEDED_JAVA:
        raise KafkaUnavailableError(f"Kafka needs Java {NEEDED_JAVA} or newer, not: {told}")
    return found


def listed():
    """Return the path of each jar at Maven Central and its SHA-256."""
    lines = (line.split() for line in LIST.read_text().splitlines() if not line.startswith("#"))
    return {path: digest for digest, path in lines}


def version():
    """Return which Kafka it is."""
    return next(path.split("/")[4] for path in listed() if "/kafka_2.13/" in path)


def cache():
    """Return the directory of the jars."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base, "sage-tests", f"kafka-{version()}")


def class_path():
    """Return the class path of Kafka, having fetched what is not in the cache."""
    directory = cache()
    directory.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jars = list(pool.map(lambda jar: _fetch(directory, *jar), listed().items()))
    return os.pathsep.join(map(str, jars))


def _fetch(directory, path, digest):
    """Return a jar that is whole: it gets its name when it has been verified."""
    target = directory / path.rpartition("/")[2]
    if target.exists():
        return target
    try:
        with urllib.request.urlopen(CENTRAL + path, timeout=60) as answer:
            data = answer.read()
    except OSError as error:
        raise KafkaUnavailableError(f"cannot fetch {CENTRAL}{path}: {error}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise KafkaUnavailableError(f"{CENTRAL}{path} is not what {LIST.name} says")
    with tempfile.NamedTemporaryFile(dir=directory, delete=False) as file:
        file.write(data)
    Path(file.name).rename(target)
    return target
