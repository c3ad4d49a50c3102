"""How clients of Kafka reach the brokers and the schema registry; the same for sources and sinks.

Here are addresses, properties that are passed through to the client, and what must never be shown
of them: passwords, tokens, private keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from sage.common.errors import ConfigError
from sage.common.quiet import HIDDEN, QuietDict
from sage.common.suggest import did_you_mean, shorten

_SECRET: Final = re.compile(
    r"password|passphrase|secret|token$|user\.info|credential|jaas|oauthbearer\.config"
    r"|private\.key\.pem|key\.pem$|access\.key",
    re.IGNORECASE,
)
_USER_INFO: Final = re.compile(r"(?<=://)[^/@\s]+@")
_ENTRIES: Final = ("bootstrap_servers", "properties")


def is_secret(name: str) -> bool:
    """Say whether the value of a property must not be shown.

    Examples:
        >>> is_secret("sasl.password"), is_secret("ssl.key.pem"), is_secret("ssl.key.location")
        (True, True, False)
    """
    return _SECRET.search(name) is not None


def import_client() -> Any:
    """Return the `confluent_kafka` module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import confluent_kafka  # an extra, and 50 ms  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            "the client of Kafka is not installed: `pip install 'sage-dataflow[kafka]'`"
        ) from error
    return confluent_kafka


class KafkaSettings:
    """Where the brokers are, and how clients log in to them.

    Settings are plain data: they are pickled with the program, and shown without their secrets.

    Args:
        bootstrap_servers: `"host:port"`, several with commas between them, or a list of them.
        properties: Properties of librdkafka by their names, such as `{"security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN", "sasl.username": ..., "sasl.password": ...}`; they are passed
            through as they are.

    Raises:
        ConfigError: an address or the name of a property cannot be one.

    Examples:
        >>> KafkaSettings("broker:9092", {"sasl.username": "ada", "sasl.password": "pw"})
        KafkaSettings('broker:9092', {'sasl.username': 'ada', 'sasl.password': '***'})
    """

    def __init__(
        self,
        bootstrap_servers: str | Iterable[str],
        properties: Mapping[str, Any] | None = None,
    ) -> None:
        self.bootstrap_servers = _servers(bootstrap_servers)
        self.properties = quiet_properties(properties or {})

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> KafkaSettings:
        """Make settings from a part of a configuration, as a YAML file gives it.

        Args:
            values: `bootstrap_servers`, and `properties`.

        Raises:
            ConfigError: a key is missing, unknown, or its value not usable.

        Examples:
            >>> KafkaSettings.from_mapping({"bootstrap_servers": ["a:9092", "b:9092"]})
            KafkaSettings('a:9092,b:9092', {})
        """
        for key in values:
            if key not in _ENTRIES:
                near = did_you_mean(str(key), _ENTRIES)
                raise ConfigError(f"Kafka has no setting {key!r}.{near}")
        if "bootstrap_servers" not in values:
            raise ConfigError("the settings of Kafka lack 'bootstrap_servers'")
        return cls(values["bootstrap_servers"], values.get("properties"))

    def check_properties(self, ours: Mapping[str, str]) -> None:
        """Check that no property is given that is set otherwise.

        Args:
            ours: The names of such properties, and what to write instead.

        Raises:
            ConfigError: one is given.
        """
        for name in self.properties:
            if name in ours:
                raise ConfigError(
                    f"the property {name!r} of Kafka is not yours to set: {ours[name]}"
                )

    def client_properties(self, **ours: Any) -> dict[str, Any]:
        """Return the properties that a client is made with; not to be shown.

        Args:
            ours: Further ones, with `_` in place of `.`; they yield to those that were given, save
                those that `check_properties` refuses.
        """
        own = {name.replace("_", "."): value for name, value in ours.items()}
        return {**own, **self.properties, "bootstrap.servers": self.bootstrap_servers}

    def hide(self, text: str) -> str:
        """Return a text, such as a message of the client, without secrets that stand in it.

        Examples:
            >>> KafkaSettings("b:1", {"sasl.password": "opensesame"}).hide("no such user:opensesame")
            'no such user:***'
        """
        return hide_secrets(text, self.properties)

    def __repr__(self) -> str:
        return f"KafkaSettings({self.bootstrap_servers!r}, {self.properties!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KafkaSettings) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self.bootstrap_servers)

    def _key(self) -> tuple[str, dict[str, Any]]:
        return self.bootstrap_servers, dict(self.properties)


class SchemaRegistry:
    """Where the schemas of records are.

    Args:
        url: `"https://registry:8081"`.
        properties: Further settings of confluent-kafka's `SchemaRegistryClient` by their names, such as
            `{"basic.auth.user.info": "user:password"}`.

    Raises:
        ConfigError: the address or the name of a property cannot be one.

    Examples:
        >>> SchemaRegistry("http://localhost:8081", {"basic.auth.user.info": "ada:pw"})
        SchemaRegistry('http://localhost:8081', {'basic.auth.user.info': '***'})
    """

    def __init__(self, url: str, properties: Mapping[str, Any] | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigError("a schema registry has an address such as 'http://localhost:8081'")
        self.url = url
        self.properties = quiet_properties(properties or {})

    def create_client(self) -> Any:
        """Return a `SchemaRegistryClient`; it connects when it is asked for a schema.

        Raises:
            ConfigError: what it needs is not installed, or a property is not usable.
        """
        try:
            from confluent_kafka.schema_registry import (  # noqa: PLC0415 - an extra, and slow
                SchemaRegistryClient,
            )
        except ImportError as error:
            raise ConfigError(
                "the client of schema registries is not installed: "
                "`pip install 'sage-dataflow[kafka-schemas]'`"
            ) from error
        try:
            return SchemaRegistryClient({"url": self.url, **self.properties})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"the schema registry cannot be used: {self.hide(error)}") from None

    def hide(self, text: object) -> str:
        """Return a text, such as a message of the client, without secrets that stand in it."""
        return _USER_INFO.sub("", hide_secrets(str(text), self.properties))

    def __repr__(self) -> str:
        return f"SchemaRegistry({_USER_INFO.sub('', self.url)!r}, {self.properties!r})"


def quiet_properties(properties: Mapping[str, Any]) -> QuietDict:
    """Return the properties of a client as a dict that does not show secrets.

    Raises:
        ConfigError: a name cannot be one.
    """
    if not hasattr(properties, "keys"):
        raise ConfigError("the properties of a client of Kafka are a dict of names and values")
    for name in properties:
        if "_" in name and not name.endswith("_cb"):
            raise ConfigError(
                f"properties of Kafka are written with dots: {name.replace('_', '.')!r}, not {name!r}"
            )
    hidden = properties.hidden if isinstance(properties, QuietDict) else ()
    return QuietDict(properties, frozenset(k for k in properties if is_secret(k) or k in hidden))


def hide_secrets(text: str, properties: Mapping[str, Any]) -> str:
    """Return a text without the values of those properties that must not be shown."""
    for name, value in properties.items():
        if is_secret(name) and isinstance(value, str | int) and value:
            text = text.replace(str(value), HIDDEN.strip("'"))
    return text


def _servers(servers: object) -> str:
    several = servers.split(",") if isinstance(servers, str) else servers
    if isinstance(several, Iterable):
        found = [server.strip() for server in several if isinstance(server, str)]
        if found and all(found) and not any("://" in server for server in found):
            return ",".join(found)
    raise ConfigError(
        "bootstrap_servers names brokers as 'host:port', several with commas between them, not "
        f"{shorten(servers)}"
    )
