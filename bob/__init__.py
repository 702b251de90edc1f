"""BOB: contextual synthetic data for fine-grained classification, as batch jobs on Ray.

The paper's steps, and where each lives:

    1  caption    bob/steps/caption.py     bob/captioners/   a VLM reads each photo's background and pose
    2  fine-tune  bob/diffusion/training.py    bob/diffusion/    LoRA on (class, background, pose) prompts
    3  generate   bob/diffusion/image_generator.py    bob/methods/      each class in contexts of the whole data set
    4  classify   bob/classifier/results.py    bob/backbones/    sweep and final training, real + synthetic
    5  tabulate   bob/paper/tabulate.py                      the tables: ours | paper | difference

`bob/paper/experiments.py` names what the paper ran, `bob/pipeline.py` turns it into work units,
`bob/cluster/` runs them on Ray, `bob/store.py` keeps what they made, `bob/commands/status.py` and
`bob/commands/verify.py` say how far that is and whether it is whole. `bob/skyworld/` is the small world that
a laptop runs all of it on. Importing this package imports nothing else.
"""
