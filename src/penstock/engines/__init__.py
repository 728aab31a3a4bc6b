"""What runs a model: the host process of a replica, its messages, and one adapter per engine."""
