"""Files that describe services: the documents' examples load, and mistakes are named."""

import collections
import sys

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sage.common.errors import ConfigError
from sage.common.yaml_file import read_yaml
from sage.kernel.runtime.service.config.service_config import (
    UNSUPPORTED,
    load_service_config,
    resolve_class,
)

SERVICES = """\
services:
  cache:
    class: "myapp.services.CacheService"
    args:
      cache_size: 10000
    process_count: 2
    
  database:
    class: "myapp.services.DatabaseService"
    kwargs:
      connection_string: "${DATABASE_URL}"
    process_count: 1
    health_check_interval: 30
"""  # noqa: W293 - the example as it stands

BASIC = """\
services:
  memory:
    host: "0.0.0.0"
    port: 8080
    max_connections: 1000
    timeout: 30
    
  discovery:
    type: "consul"  # consul, etcd, kubernetes
    address: "localhost:8500"
    
  monitoring:
    enabled: true
    metrics_port: 9090
    health_check_interval: 30
"""  # noqa: W293

ADVANCED = """\
performance:
  thread_pool_size: 100
  connection_pool_size: 50
  cache_size: "1GB"
  
security:
  tls_enabled: true
  auth_required: true
  rate_limiting: 1000  # requests per minute
  
resilience:
  circuit_breaker: true
  retry_policy:
    max_retries: 3
    backoff_multiplier: 2
"""  # noqa: W293

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata:
  name: sage-memory-service
spec:
  replicas: 3
  selector:
    matchLabels:
      app: sage-memory-service
  template:
    metadata:
      labels:
        app: sage-memory-service
    spec:
      containers:
      - name: memory-service
        image: sage/memory-service:latest
        ports:
        - containerPort: 8080
        env:
        - name: SAGE_SERVICE_PORT
          value: "8080"
"""

SERVICE = """\
service:
  local:
    max_workers: 10
    queue_timeout: 30
    request_queue_size: 10000
    
  ray:
    resources: {"CPU": 2}
    lifetime: "detached"
    max_restarts: 3
"""  # noqa: W293

SERVICE_CALL = """\
service_call:
  default_timeout: 30
  max_retries: 3
  retry_interval: 1
  async_pool_size: 20
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load(text, **environ):
        (tmp_path / "services.yaml").write_text(text)
        return load_service_config("services.yaml", environ=environ)

    return load


@pytest.fixture
def problem(load):
    def problem(text, **environ):
        with pytest.raises(ConfigError) as caught:
            load(text, **environ)
        assert caught.value.__cause__ is None
        assert caught.value.__context__ is None or caught.value.__suppress_context__
        return str(caught.value)

    return problem


def test_services(load):
    config = load(SERVICES, DATABASE_URL="postgresql://ada:pw@db/x")
    cache, database = config.services.values()
    assert list(config.services) == ["cache", "database"]
    assert cache.class_path == "myapp.services.CacheService"
    assert cache.class_where == "services.yaml:3: services.cache.class"
    assert (cache.args, cache.kwargs) == ((), {"cache_size": 10000})
    assert (cache.isolation, cache.process_count, cache.replicas) == ("process", 2, 2)
    assert database.kwargs == {"connection_string": "postgresql://ada:pw@db/x"}
    assert database.health_check_interval == 30
    assert config.unsupported == ()


def test_services_of_a_file_without_their_variable(problem):
    message = problem(SERVICES)
    assert message.startswith(
        "services.yaml:11: services.database.kwargs.connection_string: "
        "the environment variable DATABASE_URL is not set"
    )


def test_basic(load):
    config = load(BASIC)
    memory = config.services["memory"]
    assert list(config.services) == ["memory"]
    assert (memory.host, memory.port, memory.max_connections) == ("0.0.0.0", 8080, 1000)
    assert (memory.timeout, memory.class_path) == (30.0, None)
    assert (config.discovery.type, config.discovery.address) == ("consul", "localhost:8500")
    assert (config.monitoring.enabled, config.monitoring.metrics_port) == (True, 9090)
    assert config.monitoring.health_check_interval == 30.0
    assert config.unsupported == (
        "services.yaml:3: services.memory.host",
        "services.yaml:4: services.memory.port",
        "services.yaml:5: services.memory.max_connections",
        "services.yaml:9: services.discovery.type",
        "services.yaml:10: services.discovery.address",
        "services.yaml:13: services.monitoring.enabled",
        "services.yaml:14: services.monitoring.metrics_port",
    )


def test_advanced(load):
    config = load(ADVANCED)
    assert config.performance.thread_pool_size == 100
    assert config.performance.connection_pool_size == 50
    assert config.performance.cache_size == 2**30
    assert config.security.tls_enabled
    assert config.security.auth_required
    assert config.security.rate_limiting == 1000
    assert config.resilience.circuit_breaker
    assert config.resilience.retry_policy.max_retries == 3
    assert config.resilience.retry_policy.backoff_multiplier == 2.0
    assert len(config.unsupported) == 5


def test_service(load):
    config = load(SERVICE)
    local, ray = config.service.local, config.service.ray
    assert (local.max_workers, local.queue_timeout, local.request_queue_size) == (10, 30, 10000)
    assert (ray.resources, ray.lifetime, ray.max_restarts) == ({"CPU": 2}, "detached", 3)
    assert all("service.ray." in line for line in config.unsupported)


def test_service_call(load):
    call = load(SERVICE_CALL).service_call
    assert (call.default_timeout, call.max_retries, call.retry_interval) == (30.0, 3, 1.0)
    assert call.async_pool_size == 20


def test_the_deployment_is_read_and_is_no_configuration_of_services(load, problem, tmp_path):
    assert problem(DEPLOYMENT).startswith("services.yaml:1: apiVersion: unknown key.")
    assert read_yaml(tmp_path / "services.yaml").plain()["spec"]["replicas"] == 3


def test_all_blocks_together(load):
    config = load(
        SERVICES + ADVANCED + SERVICE + SERVICE_CALL + "discovery: {type: etcd}", DATABASE_URL="x"
    )
    assert (len(config.services), config.discovery.type) == (2, "etcd")


def test_an_empty_file_sets_nothing(load):
    config = load("")
    assert config.services == {}
    assert config.service_call.default_timeout is None
    assert load("services:\nservice:\n  local:\n").services == {}


def test_a_service_may_be_called_discovery(load):
    config = load("services:\n  discovery: {class: app.Discovery}\ndiscovery: {type: consul}")
    assert config.services["discovery"].class_path == "app.Discovery"
    assert config.unsupported == ("services.yaml:3: discovery.type",)


def test_arguments(load):
    text = "services:\n  a: {class: app.A, args: [1, x], kwargs: {b: 2}}\n"
    text += (
        "  b: {class: app.B, args: {c: 1}, kwargs: {d: [2, {e: 3}]}, isolation: local, replicas: 3}"
    )
    a, b = load(text).services.values()
    assert (a.args, a.kwargs) == ([1, "x"], {"b": 2})
    assert (b.args, b.kwargs) == ((), {"c": 1, "d": [2, {"e": 3}]})
    assert (b.isolation, b.replicas, b.inline) == ("local", 3, False)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("proces_count: 2", "proces_count: unknown key. Did you mean 'process_count'?"),
        ("process_count: 0", "process_count: expected `int` >= 1"),
        ("process_count: '2'", "process_count: expected `int | null`, got `str`"),
        ("process_count: 2.5", "process_count: expected `int | null`, got `float`"),
        ("isolation: proces", "isolation: must be one of local, process, ray, not 'proces'. Did"),
        ("inline: maybe", "inline: expected `bool`, got `str`"),
        ("timeout: 0", "timeout: expected `float` > 0"),
        ("timeout: .inf", "timeout: must be a finite number"),
        ("timeout: .nan", "timeout: must be a finite number"),
        ("port: 70000", "port: expected `int` <= 65535"),
        ("args: 3", "args: must be a list of positional arguments or a mapping"),
        ("kwargs: [3]", "kwargs: must be a mapping of keys to values, not a list"),
        ("process_count: 2\n    isolation: local", "isolation: with process_count it can only be"),
        ("process_count: 2\n    replicas: 3", "replicas: it differs from process_count"),
        ("args: {x: 1}\n    kwargs: {x: 1}", "args.x: given twice, also on line 5"),
    ],
)
def test_a_mistake_is_named_with_its_place(problem, entry, message):
    text = f"services:\n  cache:\n    class: app.Cache\n    {entry}"
    found = problem(text)
    line = (
        4
        + ("isolation" in message.split(":")[0] and "\n" in entry)
        + ("replicas" in message.split(":")[0])
    )
    assert found.startswith(f"services.yaml:{line}: services.cache.{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "servces: {}",
            "services.yaml:1: servces: unknown key. Did you mean 'services' or 'service'?",
        ),
        (
            "services: []",
            "services.yaml:1: services: must be a mapping of keys to values, not a list",
        ),
        (
            "services: {a: {replicas: 2}}",
            "services.yaml:1: services.a: a service needs its `class`",
        ),
        ("services: {a: }", "services.yaml:1: services.a: a service needs its `class`"),
        ("performance: {cache_size: 1 XB}", "performance.cache_size: not a size"),
        ("performance: {cache_size: -1}", "performance.cache_size: expected `int` >= 0"),
        ("resilience: {retry_policy: {backoff_multiplier: 0.5}}", "expected `float` >= 1"),
        ("service: {ray: {resources: {CPU: x}}}", "service.ray.resources: expected `float`"),
        (
            "services: {discovery: {}}\ndiscovery: {}",
            "services.discovery: given twice, also on line 2",
        ),
    ],
)
def test_other_mistakes(problem, text, message):
    assert message in problem(text)


SECRET = "pw-4711-secret"

KEYS = [
    "isolation",
    "process_count",
    "replicas",
    "inline",
    "timeout",
    "host",
    "port",
    "kwargs",
    "args",
]

ANYWHERE = [
    *("services: {a: {class: app.A, " + key + ": '${S}'}}" for key in KEYS),
    "services: {a: {class: app.A, args: ['${S}'], kwargs: {x: {y: ['${S}']}}, host: 'x-${S}'}}",
    "services: '${S}'",
    "performance: {cache_size: '${S}'}",
    "service: {ray: {resources: {CPU: '${S}'}}}",
    "service: {ray: {lifetime: '${S}'}}",
    "resilience: {retry_policy: '${S}'}",
    "discovery: {address: '${S}', type: '${S}'}",
]


@pytest.mark.parametrize("text", ANYWHERE)
def test_a_value_from_the_environment_is_never_shown(load, text):
    try:
        config = load(text, S=SECRET)
    except ConfigError as error:
        shown = repr([error, error.__cause__, error.__context__])
    else:
        shown = repr([config, *(service.kwargs for service in config.services.values())])
        assert "***" in shown
    assert SECRET not in shown


def test_numbers_from_the_environment_are_not_shown_either(load):
    text = "services:\n  a:\n    class: app.A\n    port: ${PORT}\n"
    text += "service:\n  ray:\n    resources:\n      CPU: ${CPUS}"
    config = load(text, PORT="8080", CPUS="7")
    assert (config.services["a"].port, config.service.ray.resources) == (8080, {"CPU": 7})
    assert "8080" not in repr(config)
    assert "7" not in repr(config.service)


def test_a_quoted_variable_in_the_place_of_a_number(problem):
    text = "services: {a: {class: app.A, port: '${PORT}'}}"
    assert "without them it is read as a number" in problem(text, PORT="80")


keys = st.sampled_from(
    ["max_concurrency", "max_connections", "replicas", "timeout", "health_check_interval", "port"]
)


@given(st.dictionaries(keys, st.integers(1, 1000), min_size=1))
def test_what_is_written_is_what_is_read(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("config") / "services.yaml"
    lines = [f"    {key}: {value}" for key, value in values.items()]
    path.write_text("\n".join(["services:", "  a:", "    class: app.A", *lines]))
    config = load_service_config(path)
    service = config.services["a"]
    assert {key: getattr(service, key) for key in values} == values
    reported = {line.rpartition(".")[2] for line in config.unsupported}
    assert reported == values.keys() & {"port", "max_connections"}


def test_the_caller_may_support_more(tmp_path):
    path = tmp_path / "services.yaml"
    path.write_text(ADVANCED)
    rest = load_service_config(path, unsupported=UNSUPPORTED - {"performance.*"}).unsupported
    assert [line.partition(" ")[2] for line in rest] == [
        "security.tls_enabled",
        "security.auth_required",
    ]


def test_settings_cannot_be_changed(load):
    with pytest.raises(AttributeError):
        load("").services = {}
    assert msgspec.structs.asdict(load("").service.local)["max_workers"] is None


WHERE = "services.yaml:3: services.cache.class"

MODULES = {
    "shop/__init__.py": "",
    "shop/services.py": """
class CacheService:
    @classmethod
    def small(cls): return cls()
def make_cache(size=1): return size
LIMIT = 3
""",
    "shop/broken.py": "raise RuntimeError('no disk')",
    "shop/needs.py": "import not_there_at_all",
    "shop/inner/__init__.py": "class Inner: pass",
}


@pytest.fixture
def shop(tmp_path, monkeypatch):
    for name, text in MODULES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_resolves_classes_and_factories(shop):
    cache = resolve_class("shop.services.CacheService", WHERE)
    assert cache.__name__ == "CacheService"
    assert isinstance(resolve_class("shop.services.CacheService.small", WHERE)(), cache)
    assert resolve_class("shop.services.make_cache", WHERE)(2) == 2
    assert resolve_class("shop.inner.Inner", WHERE).__name__ == "Inner"
    assert resolve_class("collections.OrderedDict", WHERE) is collections.OrderedDict


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("CacheService", "'CacheService' is not a path of the form 'package.module.Class'"),
        ("shop..X", "is not a path of the form"),
        (
            "shop.services.CachService",
            "the module 'shop.services' has no 'CachService'. Did you mean 'CacheService'?",
        ),
        (
            "shop.service.CacheService",
            "the module 'shop' has no 'service'. Did you mean 'services'?",
        ),
        (
            "shop.services.CacheService.smal",
            "the class 'CacheService' has no 'smal'. Did you mean 'small'?",
        ),
        ("shopp.services.X", "there is no module 'shopp'. Did you mean 'shop'? Is it installed"),
        ("shop.services.LIMIT", "shop.services.LIMIT is a int; it must be a class or a function"),
        ("shop.services", "shop.services is a module; it must be a class or a function"),
        ("shop.broken.X", "importing 'shop.broken' failed: RuntimeError: no disk"),
        ("shop.needs.X", "importing 'shop.needs' failed: ModuleNotFoundError: No module named"),
    ],
)
def test_what_cannot_be_resolved_is_named(shop, path, message):
    with pytest.raises(ConfigError) as caught:
        resolve_class(path, WHERE)
    assert str(caught.value).startswith(f"{WHERE}: ")
    assert message in str(caught.value)


def test_the_exception_of_a_module_is_the_cause(shop):
    with pytest.raises(ConfigError) as caught:
        resolve_class("shop.broken.X", WHERE)
    assert isinstance(caught.value.__cause__, RuntimeError)
