"""What is seen of a broker's work: traces, metrics, logs for its operator, the pace of runs for its ranking.

Never a prompt, an answer or a key.
"""

from broker.observe.metrics import Metrics
from broker.observe.telemetry import Observability
from federation.observe.logs import log_fields

__all__ = ["Metrics", "Observability", "log_fields"]
