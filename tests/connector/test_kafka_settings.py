import pickle

import pytest

from sage import ConfigError
from sage.connector.kafka_settings import KafkaSettings, SchemaRegistry, is_secret

SECRETS = {
    "sasl.password": "opensesame",
    "ssl.key.password": "hushhush",
    "ssl.keystore.password": "hush2",
    "ssl.key.pem": "-----BEGIN",
    "sasl.oauthbearer.client.secret": "s3cr3t",
    "sasl.oauthbearer.config": "secret=xyz",
    "sasl.jaas.config": 'password="p"',
}


def test_secrets_are_not_shown_and_are_given_to_the_client():
    settings = KafkaSettings("a:9092", {"sasl.username": "ada", **SECRETS})
    shown = f"{settings} {settings!r} {settings.properties} {[settings]}"
    assert not any(secret in shown for secret in SECRETS.values())
    assert "ada" in shown
    assert settings.client_properties()["sasl.password"] == "opensesame"


def test_settings_survive_pickling_quietly():
    settings = KafkaSettings("a:9092", SECRETS)
    copy = pickle.loads(pickle.dumps(settings))
    assert copy == settings
    assert "opensesame" not in repr(copy)
    assert copy.client_properties()["sasl.password"] == "opensesame"


def test_given_properties_win_over_ours_but_for_the_address():
    settings = KafkaSettings(["a:1", "b:2 "], {"client.id": "me", "bootstrap.servers": "evil:1"})
    properties = settings.client_properties(client_id="sage", group_id="g")
    assert properties == {"client.id": "me", "group.id": "g", "bootstrap.servers": "a:1,b:2"}


@pytest.mark.parametrize("servers", ["", [], None, 9092, "kafka://a:1", "a:1,,b:2", [""]])
def test_an_address_that_is_none_is_refused(servers):
    with pytest.raises(ConfigError, match="host:port"):
        KafkaSettings(servers)


def test_a_property_in_the_python_spelling_is_pointed_out():
    with pytest.raises(ConfigError, match=r"'security\.protocol', not 'security_protocol'"):
        KafkaSettings("a:1", {"security_protocol": "SSL"})


def test_properties_that_are_set_otherwise_are_refused():
    settings = KafkaSettings("a:1", {"group.id": "x"})
    with pytest.raises(
        ConfigError, match=r"'group\.id' of Kafka is not yours to set: give group_id="
    ):
        settings.check_properties({"group.id": "give group_id="})


def test_from_mapping_takes_what_a_file_gives():
    given = {"bootstrap_servers": "a:1", "properties": {"client.id": "x"}}
    assert KafkaSettings.from_mapping(given) == KafkaSettings("a:1", {"client.id": "x"})
    with pytest.raises(ConfigError, match="Did you mean 'bootstrap_servers'"):
        KafkaSettings.from_mapping({"bootstrap_server": "a:1"})
    with pytest.raises(ConfigError, match="lack 'bootstrap_servers'"):
        KafkaSettings.from_mapping({})


def test_messages_of_the_client_are_cleared_of_secrets():
    settings = KafkaSettings("a:1", SECRETS)
    assert settings.hide("Invalid value opensesame for x") == "Invalid value *** for x"
    registry = SchemaRegistry("http://ada:pw@r:1", {"basic.auth.user.info": "ada:pw2"})
    assert "pw" not in repr(registry)
    assert registry.hide("http://ada:pw@r:1/ says ada:pw2") == "http://r:1/ says ***"


def test_what_counts_as_a_secret():
    assert not any(map(is_secret, ["ssl.key.location", "sasl.username", "client.id", "group.id"]))
    assert all(map(is_secret, SECRETS))
