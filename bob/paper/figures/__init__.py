"""The paper's Figures 3 to 6 and measures per class: one file each, with the same two functions.

    units(outcomes, artefacts) -> what is to be measured first, for `bob.pipeline.measure`
    draw(outcomes, artefacts, name=...) -> writes figures/NAME.svg, .pdf and .parquet; Markdown for the terminal

    figure3     real and drawn images of one class, side by side
    figure4     density over the classes of the FID between real and drawn images
    figure5     a captioner's own accuracy against that of the classifier that its captions lead to
    figure6     histogram over the classes of one method's FID minus BOB's
    per_class   all measures, a row each: a table and no picture

The tables hold rows of schema.METRICS. Of a class:

    fid                 of the drawn images to the real ones (`metrics.fid`), in the features' units squared
    kid                 likewise (`metrics.kid`), without unit
    diversity           of the drawn images, or of the real ones (method `real`): Vendi score, in images
    context_entropy     of the (background, pose) pairs that were asked for, or of those read in the real shots, in bits
    leakage             part of the real shots whose caption named a class before it was cleaned, in [0, 1]
    fid_floor           of one half of the real images to the other: what FID is where nothing differs
    kid_floor           likewise
    captioner_accuracy  part of the test images that the captioner names rightly, in [0, 1]
    test_accuracy       of the final training, in [0, 1]

Features are those of timm's Inception v3, of skyworld's runs those of its mini ResNet, unless another backbone is
named. Real images are those that a class's shots were drawn from, them included (`against="train"`), at most twice as
many as are drawn; or the test images (`against="test"`).

FID, KID and diversity are taken over the same number of images of each set, the first of each, so that methods can be
compared: as many as the smallest set has. The floor takes as many where there are twice as many real images, else half
of these; `n` says how many.
"""
