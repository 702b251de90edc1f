"""Step 1: captions background and pose of every shot of an experiment with a vision-language model.

Cluster:  ray job submit --address http://127.0.0.1:8265 --working-dir . \\
              -- python jobs/caption.py skyworld --out s3://bucket/bob
Laptop:   python jobs/caption.py skyworld --out out
Flags:    python jobs/caption.py --help; those of `bob run`, without --upto.

Reads:    the data set's pictures, the captioner's weights.
Writes:   shots/ (the split, with a SHA-1 for each image), captions/ (32 shots a file, raw and cleaned).
Resume:   the same command. A file exists only when it is complete, and existing files are not made again.
Cost:     two questions a shot; a unit takes one GPU (--resources.caption), or CPUs where there is none.
Exit:     0 done, 1 a fault of ours, 2 a mistake in one sentence, 143 stopped by `ray job stop`.
"""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])  # not this folder: its tabulate.py would hide a library
    from bob import cli

    cli.main(["run", *sys.argv[1:], "--upto", "caption"])
