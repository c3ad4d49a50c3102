"""Builds the one compiled part of SAGE; everything else about the project is in pyproject.toml."""

from setuptools import Extension, setup

TRANSPORT = "src/sage/kernel/transport"
SOURCES = ("_sagequeue", "_plain", "_ring", "_ring_file")

setup(
    ext_modules=[
        Extension(
            "sage.kernel.transport._sagequeue",
            sources=[f"{TRANSPORT}/{name}.c" for name in SOURCES],
            depends=[f"{TRANSPORT}/_plain.h", f"{TRANSPORT}/_ring.h"],
            define_macros=[("Py_LIMITED_API", "0x030B0000"), ("_GNU_SOURCE", "1")],
            extra_compile_args=["-O2", "-std=c11", "-Wall", "-Wextra", "-pthread"],
            extra_link_args=["-pthread"],
            py_limited_api=True,
            # Without robust mutexes and futexes there is nothing to build: the Python module then
            # imports all the same, and opening a queue says what is missing.
            optional=True,
        )
    ],
    # One wheel serves every CPython from 3.11 on.
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
