"""Pictures of the playground's states, for people to judge."""
