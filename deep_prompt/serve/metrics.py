"""The metrics of a server, for Prometheus."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from deep_prompt.serve.jobs import Pass, RowAnswer
from pipeline.inference.prediction import Prediction

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75)


class ServerCounts:
    """Counts requests, rows and passes. `queued_rows` gives the number of rows that wait."""

    def __init__(self, queued_rows: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            "deep_prompt_requests", "Requests", ["route", "status"], registry=registry
        )
        self._rows = Counter(
            "deep_prompt_rows", "Rows by task and status", ["task", "status"], registry=registry
        )
        self._latency = Histogram(
            "deep_prompt_request_seconds",
            "Time from a request to its answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self._pass_rows = Histogram(
            "deep_prompt_pass_rows", "Windows per forward pass", buckets=SIZES, registry=registry
        )
        self._pass_tasks = Histogram(
            "deep_prompt_pass_tasks", "Tasks per forward pass", buckets=SIZES, registry=registry
        )
        self._padding = Histogram(
            "deep_prompt_pass_padding",
            "Share of padding in a forward pass",
            buckets=SHARES,
            registry=registry,
        )
        queue = Gauge("deep_prompt_queued_rows", "Rows that wait for the model", registry=registry)
        queue.set_function(queued_rows)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, status).inc()
        self._latency.labels(route).observe(seconds)

    def rows(self, tasks: Sequence[str], answers: Sequence[RowAnswer]) -> None:
        """Count the answered rows of a request. `tasks` are the names that its rows give."""
        for task, answer in zip(tasks, answers, strict=True):
            status = "ok" if isinstance(answer, Prediction) else "error"
            self._rows.labels(task, status).inc()

    def passes(self, passes: Sequence[Pass]) -> None:
        """Count the forward passes of a batch."""
        for forward_pass in passes:
            self._pass_rows.observe(forward_pass.rows)
            self._pass_tasks.observe(forward_pass.tasks)
            self._padding.observe(
                forward_pass.padding / (forward_pass.padding + forward_pass.tokens)
            )

    def text(self) -> bytes:
        """All metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
