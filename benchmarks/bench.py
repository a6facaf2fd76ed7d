"""How fast fewlabels is on this machine, as ratios to references that are timed in turn in the same process.

    python benchmarks/bench.py                                       # the measurements
    python benchmarks/bench.py step --device cpu --check 20          # one of them; --help lists its options

The root of the checkout is the place to be: results go to results/bench/, and `render` puts them into the documents.
"""

from __future__ import annotations

import sys

try:
    from fewlabels import cli
except ModuleNotFoundError:
    sys.exit("bench.py: fewlabels is not installed for this Python; run `pip install -e .` in the checkout first")

from bench.command import main  # the folder beside this file

if __name__ == "__main__":
    cli.main(command=main)
