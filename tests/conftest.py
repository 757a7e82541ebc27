"""What holds for all tests."""

from __future__ import annotations

import signal

# Started in the background or under nohup, the runner is deaf to these, and so would every child
# be: members and commands under test are meant to hear them.
for _signum, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_signum) is signal.SIG_IGN:
        signal.signal(_signum, _handler)
