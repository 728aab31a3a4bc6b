"""Where replica processes live: one adapter per place behind `executors.base.Executor`."""
