"""The plan for people: as text, as a Mermaid diagram, or in Graphviz's dot language."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from sage.dataflow.graph.job_graph import JobGraph, JobVertex
from sage.dataflow.graph.stream_graph import Edge, StreamNode

ExplainFormat = Literal["text", "mermaid", "dot"]


def explain(job: JobGraph, form: ExplainFormat = "text") -> str:
    """Return the plan of a job.

    Raises:
        ValueError: `form` is not one of "text", "mermaid", "dot".
    """
    formats: dict[str, Callable[[JobGraph], str]] = {
        "text": _text,
        "mermaid": _mermaid,
        "dot": _dot,
    }
    if form not in formats:
        raise ValueError(f"unknown format {form!r}; choose one of {', '.join(formats)}")
    return formats[form](job)


def _text(job: JobGraph) -> str:
    count = len(job.vertices)
    lines = [f"job {job.stream_graph.name!r}: {count} task{'s' if count != 1 else ''}"]
    for vertex in job.vertices:
        lines += [f"task {vertex.id + 1}: {vertex.name}", *_text_of_vertex(job, vertex)]
    return "\n".join(lines)


def _text_of_vertex(job: JobGraph, vertex: JobVertex) -> list[str]:
    graph = job.stream_graph
    numbers = {
        node: str(place) if other is vertex else f"{other.id + 1}.{place}"
        for other in job.vertices
        for place, node in enumerate(other.nodes, 1)
    }
    lines = []
    for node in vertex.nodes:
        targets = [_text_of_edge(edge, numbers) for edge in graph.outputs(node)]
        arrow = f" → {', '.join(targets)}" if targets else ""
        lines.append(f"  {numbers[node]:>3}  {_describe(graph.nodes[node])}{arrow}")
    return lines


def _text_of_edge(edge: Edge, numbers: dict[int, str]) -> str:
    return " ".join(filter(None, (numbers[edge.target], _edge_label(edge))))


def _describe(node: StreamNode) -> str:
    told = node.name if node.on_error == "fail" else f"{node.name} [on error: {node.on_error}]"
    return told if node.parallelism == 1 else f"{told} [{node.parallelism} subtasks]"


def _edge_label(edge: Edge) -> str:
    parts = [
        edge.upstream.tag or "",
        "back" if edge.feedback else "",
        edge.upstream.partitioning.kind if edge.upstream.partitioning.kind != "forward" else "",
    ]
    text = ", ".join(filter(None, parts))
    return f"({text})" if text else ""


def _mermaid(job: JobGraph) -> str:
    graph, lines = job.stream_graph, ["flowchart LR"]
    for vertex in job.vertices:
        lines.append(f'  subgraph task{vertex.id}["task {vertex.id + 1}"]')
        lines += [f'    n{n}["{_quote(_describe(graph.nodes[n]))}"]' for n in vertex.nodes]
        lines.append("  end")
    for edge in graph.edges:
        arrow = "-.->" if edge.feedback else "-->"
        label = f'|"{_quote(_edge_label(edge))}"|' if _edge_label(edge) else ""
        lines.append(f"  n{edge.source} {arrow}{label} n{edge.target}")
    return "\n".join(lines)


def _quote(text: str) -> str:
    return (
        text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace(">", "&gt;")
    )


def _dot(job: JobGraph) -> str:
    graph, lines = job.stream_graph, ["digraph {", "  rankdir=LR; node [shape=box];"]
    for vertex in job.vertices:
        lines.append(f'  subgraph cluster{vertex.id} {{ label="task {vertex.id + 1}";')
        lines += [
            f"    n{n} [label={_dot_string(_describe(graph.nodes[n]))}];" for n in vertex.nodes
        ]
        lines.append("  }")
    for edge in graph.edges:
        style = ", style=dashed" if edge.feedback else ""
        label = _dot_string(_edge_label(edge))
        lines.append(f"  n{edge.source} -> n{edge.target} [label={label}{style}];")
    return "\n".join([*lines, "}"])


def _dot_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
