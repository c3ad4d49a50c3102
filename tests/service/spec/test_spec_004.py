"""The code blocks of spec 004, "Kernel Runtime Services", as they are written there.

Not run are those that show how something is made inside (消息处理, 线程池执行).
"""

from __future__ import annotations

from sage import LocalEnvironment
from sage.kernel.runtime.service.base_service_task import BaseServiceTask
from sage.kernel.runtime.service.channel.service_message import ServiceRequest, ServiceResponse
from sage.kernel.runtime.service.hosting.service_context import ServiceContext
from sage.kernel.runtime.service.hosting.service_factory import ServiceFactory
from sage.kernel.runtime.service.local_service_task import LocalServiceTask
from sage.kernel.runtime.service.middleware import ServiceMiddleware as Base
from sage.kernel.runtime.service.service_caller import ServiceManager
from sage.kernel.runtime.service.service_registry import ServiceRegistry
from sage.kernel.transport.create_queue import create_queue
from service.spec.spec_services import CacheService, MyService


def test_a_local_service_task(env):
    """本地服务任务."""
    service_factory = ServiceFactory("my_service", MyService)
    runtime_context = ServiceContext("my_service", env)

    # 创建本地服务任务
    service_task = LocalServiceTask(service_factory, runtime_context)

    # 启动服务
    service_task.start_service()

    # 检查服务状态
    status = service_task.get_service_status()
    assert status["status"] == "running"
    service_task.stop_service()


def test_the_fields_of_requests_and_responses():
    """请求/响应模式: the fields of the document come first, in its order; the others have defaults."""
    request = ServiceRequest("1", "my_service", "process_data", (1,), {"a": 2}, "answers")
    assert (request.request_id, request.service_name, request.method_name) == (
        "1",
        "my_service",
        "process_data",
    )
    assert (request.args, request.kwargs, request.response_queue_name) == (
        (1,),
        {"a": 2},
        "answers",
    )
    response = ServiceResponse(success=False, result=None, error="no")
    assert (response.success, response.result, response.error) == (False, None, "no")


def test_sync_and_async_calls(isolation):
    """服务调用: `kwargs={"timeout": 30}` is the method's own; it reaches it."""
    data = [1, 2]
    with LocalEnvironment("calls") as environment:
        service = environment.register_service("my_service", MyService)
        service.options(isolation=isolation)

        # 创建服务管理器
        service_manager = ServiceManager(environment)

        # 同步调用服务
        response = service_manager.call_service_sync(
            service_name="my_service",
            method="process_data",
            args=(data,),
            kwargs={"timeout": 30},
        )
        assert response == (data, 30)

        # 异步调用服务
        future = service_manager.call_service_async(
            service_name="my_service", method="process_data", args=(data,)
        )
        result = future.result()
        assert result == (data, None)


def test_a_queue_is_made_by_name(tmp_path, monkeypatch):
    """mmap 队列集成."""
    monkeypatch.setenv("SAGE_QUEUE_DIR", str(tmp_path))

    class Adapter:
        _request_queue_name = "my_service_requests"

        def __init__(self):
            # 使用高性能队列适配器
            self._request_queue = create_queue(name=self._request_queue_name)

    with Adapter()._request_queue as queue:
        queue.put(b"a")
        assert queue.get() == b"a"
        queue.close()


def test_a_task_that_is_made_already_is_registered(env):
    """服务注册."""
    service_task = LocalServiceTask(ServiceFactory("my_service", MyService))
    env.register_service("my_service", service_task)
    assert ServiceManager(env).call_service_sync("my_service", "process_data", 1) == (1, None)


def test_the_queue_of_a_service(isolation):
    """服务发现."""
    service_name = "my_service"
    with LocalEnvironment("discovery") as environment:
        environment.register_service(service_name, MyService).options(isolation=isolation)
        # 通过服务管理器发现服务
        service_manager = ServiceManager(environment)
        service_queue = service_manager.get_service_queue(service_name)
        assert service_queue.qsize() == 0


# 服务配置 and 调用配置, in one file with a service
FILE = """
services:
  cache:
    class: service.spec.spec_services.CacheService
    args: [10]
service:
  local:
    max_workers: 10
    queue_timeout: 30
    request_queue_size: 10000

  ray:
    resources: {"CPU": 2}
    lifetime: "detached"
    max_restarts: 3
service_call:
  default_timeout: 30
  max_retries: 3
  retry_interval: 1
  async_pool_size: 20
"""


def test_services_are_configured_by_a_file(env, tmp_path, caplog):
    """Every key is known; only `async_pool_size` has no effect, as there is no such pool."""
    path = tmp_path / "services.yaml"
    path.write_text(FILE)
    env.load_services(path)
    options = env.services.factory("cache").options
    assert (options.max_concurrency, options.queue_timeout) == (10, 30)
    assert (options.calls.max_calls, options.calls.call.timeout) == (10_000, 30)
    assert options.calls.call.retry.max_attempts == 4
    assert options.calls.call.retry.initial_delay == 1
    warned = [record.getMessage() for record in caplog.records if "no effect" in record.message]
    assert len(warned) == 1
    assert "async_pool_size" in warned[0]
    assert ServiceManager(env).call_service_sync("cache", "get", "a") is None


# 自定义服务任务
class CustomServiceTask(BaseServiceTask):
    def __init__(self, service_factory, ctx):
        super().__init__(service_factory, ctx)
        # 自定义初始化

    def custom_handle_request(self, request):
        # 自定义请求处理逻辑
        return self.service.process(request)


def test_a_custom_service_task(env, isolation):
    """Whatever method is called, the task's own handler answers."""
    env.register_service("mine", CustomServiceTask, MyService).options(isolation=isolation)
    assert ServiceManager(env).call_service_sync("mine", "anything", 1, 2) == ("anything", (1, 2))


# 服务中间件: with the base of the house; the document has a class without one
class ServiceMiddleware(Base):
    def __init__(self):
        self.seen = []

    def before_call(self, request):
        # 调用前的处理逻辑
        self.seen.append(request.method_name)

    def after_call(self, response):
        # 调用后的处理逻辑
        self.seen.append(response.result)


def test_a_middleware_sees_both_ends(env, isolation):
    """It sees the request before the call and the response after it."""
    middleware = ServiceMiddleware()
    cache = env.register_service("cache", CacheService, cache_size=10)
    cache.options(isolation=isolation, middleware=[middleware])
    assert ServiceManager(env).call_service_sync("cache", "health_check") is True
    assert middleware.seen == ["health_check", True]


def test_a_registry_finds_what_is_registered():
    """Spec 001, 服务发现与注册: `register_service` and `discover_services`."""
    with ServiceRegistry() as registry:
        registry.register_service("spec-cache", CacheService, cache_size=10)
        assert registry.discover_services()["spec-cache"].class_path.endswith("CacheService")


def test_processes_are_watched_and_started_anew(env):
    """Spec 001, 服务进程管理系统: `monitor_service_health` and `restart_service`."""
    env.register_service("mine", MyService).options(isolation="process", timeout=20)
    call = (
        ServiceManager(env)
        .get_sync_proxy("mine")
        .options(idempotent=True, retry={"max_attempts": 50, "max_delay": 0.2})
    )
    before = call.pid()
    processes = env.services._manager
    assert processes.monitor_service_health() == {"mine[0]": True}
    life = processes.processes("mine")[0]
    processes.restart_service("mine")
    life.process.wait(10)
    assert call.pid() != before
