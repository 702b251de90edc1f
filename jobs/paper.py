"""All tables of the paper in one pipeline, so that what they share is made once: captions, adapters, images.

Cluster:  ray job submit --address http://127.0.0.1:8265 --working-dir . \\
              -- python jobs/paper.py --seeds 0 1 2 --out s3://bucket/bob
Laptop:   python jobs/classify.py smoke_paper --out out     the same on skyworld, with budgets that mean nothing
Flags:    python jobs/paper.py --help; those of `bob run`, without the experiment's name.

Reads:    the paper's data sets and weights: `bob doctor` says which are here, and where the others come from.
Writes:   all that the other jobs write, and a table for each of the paper's, beside its printed numbers.
Resume:   the same command. Parts of it may be run before, by the other jobs with `table1`, `table2` ... .
Cost:     some 210,000 images for BOB alone, and 300 GPU hours and more for the classifiers of Table 1 (estimated).
          --resources.*.most bounds how many nodes the autoscaler is asked for.
Exit:     0 done, 1 a fault of ours, 2 a mistake in one sentence, 143 stopped by `ray job stop`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its tabulate.py would hide a library
    from bob import cli

    cli.main(["run", "paper", *sys.argv[1:]])
