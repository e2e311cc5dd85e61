"""An agent on a kernel that knows no tables that belong to a socket: before Linux 5.12 the flag is unknown."""

import sys

from mirrord_agent import __main__
from mirrord_agent.incoming import nft

if __name__ == "__main__":
    nft._IS_OWNED = 0x4000_0000
    sys.exit(__main__.main())
