"""The Open Inference Protocol, version 2, over gRPC: HTTP/2 of our own, and the messages of the protocol.

Nothing here is imported unless a port for it is open.
"""
