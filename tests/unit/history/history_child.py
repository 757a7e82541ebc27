"""A process that writes history until it is killed. Run by ``test_history_crash``.

Arguments: database, key file. Prints one line per transaction. The entries are a function of their
index, so that whoever looks afterwards knows what must be there.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[3]))

from history_world import IDENTITY, World

from configsvc.apply.commands import TableChange
from configsvc.storage.history.store import History
from configsvc.storage.seal.keyfile import KeyFile

ENTRIES = 600


def scripted_world(entries: int) -> World:
    """The first entries of the script."""
    world = World()
    for number in range(entries):
        if number % 11 == 0:
            world.bookkeeping(TableChange("meta", ("n",), (b"%d" % number,)))
        elif number % 7 == 0:
            world.delete(b"k%d" % (number % 5), b"k%d" % (number % 3))
        else:
            world.commit(
                [("put", b"k%d" % (number % 13), b"v%d" % number, 0)],
                actor=b"%032d" % number if number % 50 == 1 else b"",
            )
    return world


def main() -> None:
    database, key = sys.argv[1:]
    history = History.open(database, IDENTITY, KeyFile.load(key), create=True)
    effects = scripted_world(ENTRIES).effects
    at = history.meta().applied
    print("open", at, flush=True)
    while at < ENTRIES:
        step = 1 + at % 9
        history.write(effects[at : at + step], b"conf %d" % at)
        at = history.meta().applied
        if at % 4 == 0:
            history.checkpoint()
        print("wrote", at, flush=True)
    history.close()
    print("closed", flush=True)


if __name__ == "__main__":
    main()
