"""Is a report genuine: from AMD's pinned root to the signature over its bytes."""
