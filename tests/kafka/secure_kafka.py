"""A broker that demands a login over TLS: certificate, user and password are made up at the start."""

import secrets
import shutil
import subprocess

from confluent_kafka.admin import ScramCredentialInfo, ScramMechanism, UserScramCredentialUpsertion

from kafka.kafka_cluster import HOST, PATIENCE, KafkaCluster
from kafka.kafka_jars import KafkaUnavailableError

USER = "ada"
ITERATIONS = 4096
LISTENER = "listener.name.sasl_ssl"


class SecureKafka(KafkaCluster):
    """One broker, for clients that log in with PLAIN or SCRAM-SHA-512.

    Args:
        directory: Where certificate and key are kept.
    """

    def __init__(self, directory):
        self.certificate, identity = make_certificate(directory)
        self._password = secrets.token_urlsafe(12)
        properties = {
            f"{LISTENER}.ssl.keystore.type": "PEM",
            f"{LISTENER}.ssl.keystore.location": identity,
            f"{LISTENER}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
            f"{LISTENER}.plain.sasl.jaas.config": self._login_module("plain.Plain", with_user=True),
            f"{LISTENER}.scram-sha-512.sasl.jaas.config": self._login_module("scram.Scram"),
        }
        super().__init__(properties=properties, secure=True)

    def _login_module(self, name, *, with_user=False):
        user = f' user_{USER}="{self._password}"' if with_user else ""
        return f"org.apache.kafka.common.security.{name}LoginModule required{user};"

    def start(self):
        """Start it, and make the user known."""
        super().start()
        how = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, ITERATIONS)
        password = self._password.encode()
        asked = [UserScramCredentialUpsertion(USER, how, password)]
        admin = self.admin()
        admin.alter_user_scram_credentials(asked)[USER].result(PATIENCE)

    def login(self, mechanism="SCRAM-SHA-512", **changes):
        """Return the properties with which a client logs in."""
        return {
            "security.protocol": "SASL_SSL",
            "ssl.ca.location": str(self.certificate),
            "sasl.mechanism": mechanism,
            "sasl.username": USER,
            "sasl.password": self._password,
            **{name.replace("_", "."): value for name, value in changes.items()},
        }


def make_certificate(directory):
    """Return files with a certificate for the loopback address, and with it and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        raise KafkaUnavailableError("no openssl is installed, which makes the certificate")
    certificate, identity = directory / "certificate.pem", directory / "identity.pem"
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-days", "2"]
    name = ["-subj", "/CN=broker", "-addext", f"subjectAltName=IP:{HOST}"]
    files = ["-keyout", identity, "-out", certificate]
    subprocess.run([openssl, "req", "-x509", *kind, *name, *files], check=True, capture_output=True)
    with identity.open("a") as file:
        file.write(certificate.read_text())
    return certificate, identity
