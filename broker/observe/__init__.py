"""What an operator can see of a broker: traces, metrics, logs. Never a prompt, an answer or a key."""

from broker.observe.metrics import Metrics
from broker.observe.telemetry import Observability
from federation.observe.logs import log_fields

__all__ = ["Metrics", "Observability", "log_fields"]
