"""Starting and stopping replica processes: adapters of `executors.base.Executor`."""
