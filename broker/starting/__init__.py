"""From a configuration to a broker: its papers, its log, its parts."""
