"""Traffic to the target's ports: mirrored to the client, or stolen for it.

What is mirrored is read off captured packets; bytes in, events out:

- `packets`: packets as TCP segments and UDP datagrams.
- `stream`: the bytes of one side of a connection, put in order.
- `handshakes`: beginnings of connections.
- `reassembly`: connections and datagrams, as `events`.
"""
