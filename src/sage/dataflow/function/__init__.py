"""The contracts that users implement: functions, sources and sinks, and what they see at run time.

Users import them from `sage.core.api.function.*` or from `sage`; they live here so that operators
can refer to them without looking up.
"""
