"""Running a deployment: one server a store, settings that have no effect, retention, forgetting, copies of the store."""
