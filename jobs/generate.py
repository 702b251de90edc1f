"""Step 3: draws the synthetic images of an experiment.

Cluster:  ray job submit --address http://127.0.0.1:8265 --working-dir . \\
              -- python jobs/generate.py skyworld --out s3://bucket/bob
Laptop:   python jobs/generate.py skyworld --out out
Flags:    python jobs/generate.py --help; those of `bob run`, without --upto.

Reads:    captions/, adapters/, the checkpoint's weights; for some methods the data set's pictures.
Writes:   images/ (requests and drawn images in Parquet, 100 a file); missing results of steps 1 and 2 are made
          first.
Resume:   the same command draws the missing images, and none twice, whatever was killed.
Cost:     one GPU a unit (--resources.generate), any GPU that holds the checkpoint; spot nodes are fine, since at
          most one file per worker is lost. --resources.generate.most limits the nodes asked of the autoscaler.
Exit:     0 done, 1 a fault of ours, 2 a mistake in one sentence, 143 stopped by `ray job stop`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its tabulate.py would hide a library
    from bob import cli

    cli.main(["run", *sys.argv[1:], "--upto", "generate"])
