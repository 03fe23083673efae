"""What every program shows of itself: logs, spans, and the trace that crosses the bus."""
