"""HTTP under load: the Flask apps that are compared, the servers that serve them, and the clients."""
