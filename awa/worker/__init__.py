"""When things happen in a worker process: claims, handlers, endings."""
