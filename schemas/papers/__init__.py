"""A federation's signed papers: the charter, the members' manifests, and the trust they add up to."""
