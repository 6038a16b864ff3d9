"""The stores, one a file; `counter.store.open_store` picks one by its URL."""
