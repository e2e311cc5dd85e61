"""HTTP as it comes to the target's port, and whose each request is.

Sans-I/O: bytes and times in, actions out.

- `filters`: what says of a request that it is the process's.
- `router`: decides for a connection that is stolen; `mirror`: for one that is only watched.
- `actions`: what these want done, and by whom they want to be told what came of it.
- `marks`: a header by which responses say who served them.

The rest is how: `http1` with `readers`, `framing` and `relay`; `http2` and what begins like it; `patterns`, `jsonpath`.
"""
