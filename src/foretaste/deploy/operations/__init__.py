"""Running a deployment: one server a store, settings without effect, retention, forgetting, copies of the store."""
