"""Traffic to the target's ports: mirrored to the client, or stolen for it.

`service` has a client's `subscriptions`, and the streams on which it hears of what has come (`arrivals`, `notices`).

- `stealing`: connections and datagrams come to the agent, by `redirects` (with a `reserved` descriptor) of which other
  sessions know (`registry`).
- `stolen_datagrams`: a UDP port.
- `routed`, with `socket_leg` and `process_leg`: connections of which a filter takes requests; see `http`.
- `mirroring`: packets (`capture`, `capture_filter`) become copies of connections and datagrams, if these are the
  target's (`local_addresses`, `translations`).
- `followed`, `followed_http`, `mirrored_stream`, `mirrored_datagrams`: these copies.

Redirects are a table of nftables, which goes with the session: `ruleset`, `guardian`; `nft`, `expressions`, `netlink`
and others say it to the kernel. `destinations` tells where a redirected connection was going, `connections` resets
those that are there.

What is mirrored is read off captured packets; bytes in, events out:

- `packets`: packets as TCP segments and UDP datagrams.
- `stream`: the bytes of one side of a connection, put in order.
- `handshakes`: beginnings of connections.
- `reassembly`: connections and datagrams, as `events`.
"""
