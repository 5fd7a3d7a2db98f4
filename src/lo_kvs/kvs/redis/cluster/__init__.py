"""A Redis cluster: requests to the nodes of its slots, redirections, a writer per slot."""
