"""What a memory on an object store costs: a model of requests, bytes, seconds and RAM, and its check."""
