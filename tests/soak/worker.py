"""
One process of actors: `worker.py ADDRESS ROLE:NUMBER...`. On stdin it is told "killed" (the daemon was, and is not
back yet), "steady" (no restart comes any more), "rest", "resume", "stop" and "verify"; on stdout it says "noted",
"resting", "resumed", "stopped", "verified", "wrong" and why, and at last what it has "counted".
"""

import collections
import json
import sys

import session  # before what it finds: the modules of the end-to-end tests
import onlookers
import owners

ROLES = {name.lower(): role for module in (owners, onlookers) for name, role in vars(module).items()
         if isinstance(role, type) and issubclass(role, session.Actor) and role is not session.Actor}


def main():
    process = session.Process(sys.argv[1])
    actors = []
    for word in sys.argv[2:]:
        role, number = word.split(":")
        actors.append(ROLES[role](process, int(number)))
    for actor in actors:
        actor.start()
    live = 0
    for line in sys.stdin:
        if line == "killed\n":
            process.kills += 1
            print("noted", flush=True)
        elif line == "steady\n":
            process.steady.set()
        elif line == "rest\n":
            process.rest(len(actors))
            print("resting", flush=True)
        elif line == "resume\n":
            process.resume()
            print("resumed", flush=True)
        elif line == "stop\n":
            process.stopping.set()
            for actor in actors:
                actor.join()
            print("stopped", flush=True)
        elif line == "verify\n":
            for actor in actors:
                actor.connect()
                live += actor.guarded(actor.verify) or 0
            print("verified", flush=True)
    codes = sum((actor.codes for actor in actors), collections.Counter())
    compactions = sum(actor.checks for actor in actors if isinstance(actor, onlookers.Compactor))
    print("counted " + json.dumps({
        "live": live, "calls": sum(actor.calls for actor in actors), "checks": sum(actor.checks for actor in actors),
        "compactions": compactions, "codes": codes}), flush=True)


if __name__ == "__main__":
    main()
