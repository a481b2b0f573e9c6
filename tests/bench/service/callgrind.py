"""Instructions a call or a key takes in a server: the difference of two runs of different length, which is exact.

What the kernel does is not in it. One call is in flight at a time unless said otherwise, so that how calls meet doesn't
change from run to run.
"""

import os
import re
import subprocess
import tempfile

LINE = re.compile(r"^\s*([\d,]+)\s*(?:\([\s\d.]+%\))?\s+(.*)$")


def functions(profile, inclusive):
    """Instructions of each function of a profile, by its name and where it lies."""
    text = subprocess.run(["callgrind_annotate", "--threshold=100", "--auto=no", "--show-percs=no",
                           "--inclusive=" + ("yes" if inclusive else "no"), profile],
                          stdout=subprocess.PIPE, text=True, check=True).stdout
    found = {}
    for line in text.split("file:function", 1)[-1].splitlines():
        match = LINE.match(line)
        if not match:
            continue
        place = match.group(2)
        source, _, rest = place.partition(":")
        library = re.search(r"\[([^]]*)\]\s*$", rest)
        name = re.sub(r"\s*\[[^]]*\]\s*$", "", rest) or source
        name = re.sub(r"'\d+$", "", name)
        where = os.path.basename(library.group(1)) if library else ""
        key = f"{name} [{where}]"
        count = int(match.group(1).replace(",", ""))
        # of a recursive function's cycles the outermost holds the others
        found[key] = max(found.get(key, 0), count) if inclusive else found.get(key, 0) + count
    return found


def total(profile):
    with open(profile) as lines:
        for line in lines:
            if line.startswith(("summary:", "totals:")):
                return int(line.split()[1])
    raise RuntimeError(f"{profile} has no total")


class Profile:
    """Instructions a unit (a call or a key) of work."""

    def __init__(self, short, long, units):
        self.total = (total(long) - total(short)) / units
        self.by = {}
        for inclusive in (False, True):
            a, b = functions(short, inclusive), functions(long, inclusive)
            self.by[inclusive] = sorted(((b[name] - a.get(name, 0)) / units, name) for name in b)[::-1]

    def show(self, out, title, unit, top):
        print(f"{title}: {self.total:,.1f} instructions a {unit}", file=out)
        for inclusive, what in ((False, "self"), (True, "with what they call")):
            print(f"\n  {what}:", file=out)
            for count, name in self.by[inclusive][:top]:
                if count >= 0.5 if self.total > 1000 else count >= 0.01:
                    print(f"  {count:12,.1f} {100 * count / self.total:5.1f} %  {name[:150]}", file=out)
        print(file=out)


def measure(programs, start, units_a_call, calls, **load):
    """`start(before)` starts the server behind the words `before`; `calls` are the two lengths."""
    with tempfile.TemporaryDirectory() as folder:
        profiles = []
        for length in calls:
            profile = os.path.join(folder, f"profile.{length}")
            before = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={profile}"]
            with start(before) as server:
                programs.load(server, calls=length, **load)
            profiles.append(profile)
        return Profile(*profiles, (calls[1] - calls[0]) * units_a_call)
