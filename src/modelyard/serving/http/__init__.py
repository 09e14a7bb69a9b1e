"""HTTP/1.1 on a socket: connections, exchanges, encodings, TLS; nothing of models is known here."""
