"""The code blocks of spec 001, "Global service calls", as they are written there.

What a block leaves open is filled in around it: services, `process_data`, `self.logger` of a service
manager. A comment names the section. Blocks that show how something is made inside, with names that
begin with an underscore, are not run (结果回收机制, BaseFunction集成, 服务生命周期管理).
"""

from __future__ import annotations

import logging
import os
import time

import pytest

from sage import ServiceCallError
from sage.core.api.function.map_function import MapFunction
from sage.core.api.local_environment import LocalEnvironment
from sage.kernel.runtime.service.service_caller import ServiceManager
from service.spec.spec_services import (
    CacheService,
    DatabaseService,
    ExternalApi,
    Flaky,
    SlowService,
)


def register(env, isolation):
    # 1. 服务注册
    cache = env.register_service("cache", CacheService, cache_size=10000)
    database = env.register_service(
        "database", DatabaseService, connection_string="postgresql://localhost/mydb"
    )
    cache.options(isolation=isolation)
    database.options(isolation=isolation)


# 2. 同步服务调用
class MyMapFunction(MapFunction):
    def execute(self, data):
        # 同步调用缓存服务
        cached_result = self.call_service["cache"].get(f"key_{data['id']}")

        if cached_result is not None:
            return cached_result

        # 处理数据
        result = self.process_data(data)

        # 缓存结果
        self.call_service["cache"].set(f"key_{data['id']}", result)

        return result

    def process_data(self, data):
        return data["value"] * 10


# 3. 异步服务调用
class AsyncMapFunction(MapFunction):
    def execute(self, data):
        # 发起异步调用
        cache_future = self.call_service_async["cache"].get(f"key_{data['id']}")
        db_future = self.call_service_async["database"].query(
            f"SELECT * FROM table WHERE id={data['id']}"
        )

        # 在等待的同时做其他处理
        processed_data = self.local_processing(data)

        # 获取异步结果
        try:
            cached_data = cache_future.result(timeout=2.0)
            db_data = db_future.result(timeout=5.0)

            return self.combine_results(processed_data, cached_data, db_data)
        except Exception as e:
            self.logger.warning(f"Async call failed: {e}")
            return processed_data

    def local_processing(self, data):
        return data["id"]

    def combine_results(self, processed, cached, row):
        return processed, cached, row


class BadAsyncMapFunction(AsyncMapFunction):
    def combine_results(self, processed, cached, row):
        raise LookupError("nothing fits")


def run(env, function, records):
    results = env.from_batch(records).map(function).collect()
    env.execute(progress=False)
    return list(results)


def test_sync_calls_in_a_pipeline(env, isolation):
    """The second record with the same id gets the result of the first."""
    register(env, isolation)
    records = [{"id": 1, "value": 2}, {"id": 1, "value": 3}, {"id": 2, "value": 4}]
    assert run(env, MyMapFunction, records) == [20, 20, 40]


def test_async_calls_in_a_pipeline(env, isolation):
    """Two calls are under way while the function works on."""
    register(env, isolation)
    row = "row of SELECT * FROM table WHERE id=7"
    assert run(env, AsyncMapFunction, [{"id": 7}]) == [(7, None, row)]


def test_a_failed_async_call_is_logged(env, isolation, caplog):
    """`self.logger` of a function is there."""
    register(env, isolation)
    with caplog.at_level(logging.WARNING):
        assert run(env, BadAsyncMapFunction, [{"id": 7}]) == [7]
    assert "Async call failed: nothing fits" in caplog.text


class Calling:
    """Stands for the function whose methods the short blocks are taken from."""

    def __init__(self, env):
        self.call_service = {name: ServiceManager(env).get_sync_proxy(name) for name in NAMES}


NAMES = ("database", "slow_service", "external_api", "flaky")


def test_batch_query(env, isolation):
    """性能优化, 2. 批量操作."""
    register(env, isolation)
    self = Calling(env)
    results = self.call_service["database"].batch_query(
        ["SELECT * FROM table1 WHERE id=1", "SELECT * FROM table2 WHERE id=2"]
    )
    assert [result.split()[-1] for result in results] == ["id=1", "id=2"]


def test_a_timeout_is_a_timeout_error(env, isolation, tmp_path):
    """错误处理, 1. 超时处理."""
    held = tmp_path / "held"
    os.mkfifo(held)
    service = env.register_service("slow_service", SlowService, str(held))
    service.options(isolation=isolation, timeout=0.1)
    self, data = Calling(env), 5
    if isolation == "process":  # it has 0.1 s to answer, not to start
        env.services.start_all()
    pipe = os.open(held, os.O_RDWR)
    try:
        try:
            result = self.call_service["slow_service"].heavy_operation(data)
        except TimeoutError:
            # 使用默认值或降级策略
            result = -data
        os.write(pipe, b".")  # it can end now
        assert result == -5
        env.close()
    finally:
        os.close(pipe)


@pytest.mark.parametrize("message", ["connection refused", "no such host"])
def test_an_unavailable_service_is_told_by_its_message(env, isolation, message):
    """错误处理, 2. 服务不可用."""
    env.register_service("external_api", ExternalApi, message).options(isolation=isolation)
    self, data = Calling(env), 5

    def call():
        try:
            result = self.call_service["external_api"].call(data)
        except RuntimeError as e:
            if "connection refused" in str(e):
                # 服务降级
                result = -data
            else:
                raise
        return result

    if message == "connection refused":
        assert call() == -5
    else:
        with pytest.raises(ServiceCallError, match=message):
            call()


# 错误处理, 3. 重试机制
def call_with_retry(self, service_name, method_name, *args, max_retries=3, **kwargs):
    for attempt in range(max_retries):
        try:
            return self.call_service[service_name].__getattr__(method_name)(*args, **kwargs)
        except Exception:
            if attempt == max_retries - 1:
                raise
            time.sleep(0 * 2**attempt)  # 指数退避; the tests do not sleep
    return None


def test_call_with_retry(env, isolation):
    """The third attempt gets through."""
    env.register_service("flaky", Flaky, 2).options(isolation=isolation)
    assert call_with_retry(Calling(env), "flaky", "fetch", "a", suffix="b") == "ab"


def test_call_with_retry_gives_up(env, isolation):
    """After the last attempt the error is raised."""
    env.register_service("flaky", Flaky, 3).options(isolation=isolation)
    with pytest.raises(RuntimeError, match="connection refused"):
        call_with_retry(Calling(env), "flaky", "fetch", "a")


class DocumentedManager(ServiceManager):
    """The manager, with the method of the document in place of its own."""

    # 监控与调试, 3. 健康检查
    def health_check_all_services(self):
        """检查所有已注册服务的健康状态"""
        health_status = {}
        for service_name in self._service_factories:
            try:
                # 假设所有服务都有health_check方法
                status = self.call_service_sync(service_name, "health_check", timeout=5.0)
                health_status[service_name] = "healthy" if status else "unhealthy"
            except Exception as e:
                health_status[service_name] = f"error: {e}"
        return health_status


# 监控与调试, 2. 调用链追踪
class TracedServiceManager(DocumentedManager):
    def call_service_sync(self, service_name, method_name, *args, **kwargs):
        trace_id = self.generate_trace_id()
        self.logger.info(f"Service call started: {trace_id} -> {service_name}.{method_name}")

        start_time = time.time()
        try:
            result = super().call_service_sync(service_name, method_name, *args, **kwargs)
            self.logger.info(
                f"Service call completed: {trace_id} in {time.time() - start_time:.3f}s"
            )
            return result
        except Exception as e:
            self.logger.error(f"Service call failed: {trace_id} - {e}")
            raise


def test_a_traced_manager_logs_its_calls(env, isolation, caplog):
    """Positional arguments, keywords and `timeout=` go through `super()` as they came."""
    env.register_service("flaky", Flaky, 1).options(isolation=isolation)
    manager = TracedServiceManager(env)
    with caplog.at_level(logging.INFO, logger="sage.service"):
        with pytest.raises(RuntimeError, match="connection refused"):
            manager.call_service_sync("flaky", "fetch", "a", timeout=5.0)
        assert manager.call_service_sync("flaky", "fetch", "a", suffix="b", timeout=5.0) == "ab"
    assert "Service call failed: " in caplog.text
    assert "Service call completed: " in caplog.text


@pytest.mark.parametrize("manager_class", [ServiceManager, DocumentedManager, TracedServiceManager])
def test_health_of_all_services(env, isolation, manager_class):
    """The manager's own check says what the document's says."""
    register(env, isolation)
    health = manager_class(env).health_check_all_services()
    assert health == {"cache": "healthy", "database": "unhealthy"}


# 下一步工作, 3. 配置管理, with the module of the test in place of `myapp`
FILE = """
services:
  cache:
    class: "service.spec.spec_services.CacheService"
    args:
      cache_size: 10000
    process_count: 2

  database:
    class: "service.spec.spec_services.DatabaseService"
    kwargs:
      connection_string: "${DATABASE_URL}"
    process_count: 1
    health_check_interval: 30
"""


def test_services_from_a_file(env, tmp_path, monkeypatch, caplog):
    """Each key of the file has its effect: none is warned of."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/mydb")
    path = tmp_path / "services.yaml"
    path.write_text(FILE)
    env.load_services(path)
    cache, database = (env.services.factory(name).options for name in ("cache", "database"))
    assert (cache.isolation, cache.replicas) == ("process", 2)
    assert (database.replicas, database.health_check_interval) == (1, 30)
    assert "no effect" not in caplog.text
    health = ServiceManager(env).health_check_all_services()
    assert health == {"cache": "healthy", "database": "unhealthy"}


def test_the_environment_of_the_document():
    """1. 服务注册: the environment is imported and made as the document does it."""
    env = LocalEnvironment("my_app")
    assert env.close()["status"] == "success"
