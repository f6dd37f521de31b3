"""A head-end in a process of its own, that looks at its wall clock often and whose tokens are soon over."""

import sys
from pathlib import Path

import trio

from ipss_headend import config, log
from ipss_headend.config import LogConfig
from ipss_headend.field import campaign
from ipss_headend.rpc import logins
from ipss_headend.server import serve

LOOK_S = 0.2
TOKEN_S = 2.0

if __name__ == "__main__":
    campaign.LOOK_S = LOOK_S
    logins.TOKEN_S = TOKEN_S
    log.configure(LogConfig(level="error"))
    trio.run(serve, config.load(Path(sys.argv[1])))
