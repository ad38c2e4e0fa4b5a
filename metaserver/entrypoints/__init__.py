"""gRPC, HTTP and the console script: parse, call the service, map errors."""
