"""The deployment's edge: connections and their limits, paths and headers that pass through, settings of requests."""
