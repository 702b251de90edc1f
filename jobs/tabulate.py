"""Step 5: tabulates the results of an experiment, with a dash for missing ones. Makes nothing else.

Cluster:  ray job submit --address http://127.0.0.1:8265 --working-dir . \\
              -- python jobs/tabulate.py skyworld --out s3://bucket/bob
Laptop:   python jobs/tabulate.py skyworld --out out
Flags:    python jobs/tabulate.py --help; those of `bob run`.

Reads:    shots/, results/, images/ (a few, for the pictures), the data set's pictures.
Writes:   tables/ (.parquet, .csv, .md, .png).
Resume:   nothing to resume; may be run at any time, also while another job is running.
Cost:     seconds, no GPU.
Exit:     0 done, 1 a fault of ours, 2 a mistake in one sentence, 143 stopped by `ray job stop`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its tabulate.py would hide a library
    from bob import cli

    cli.main(["run", *sys.argv[1:], "--table-only"])
