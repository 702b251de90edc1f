"""The paper's Figures 3 to 6 and measures per class: one module each, with the same two functions.

    units(outcomes, artefacts) -> units of the measurements that the figure needs, for `bob.pipeline.measure`
    draw(outcomes, artefacts, name=...) -> writes figures/NAME.svg, .pdf and .parquet; Markdown for the terminal

    figure3     real and drawn images of one class, side by side
    figure4     density over the classes of the FID between real and drawn images
    figure5     a captioner's own accuracy against that of the classifier that its captions lead to
    figure6     histogram over the classes of one method's FID minus BOB's
    per_class   all measures, a row each: figures/NAME.parquet and no picture

Figure 3 writes no .parquet. The other tables hold rows of schema.METRICS, with the metrics of a class:

    fid                 FID of the drawn images to the real ones (`metrics.fid`), in the features' units squared
    kid                 KID of the drawn images to the real ones (`metrics.kid`), without unit
    diversity           Vendi score of the drawn images, or of the real ones (method `real`), in images
    context_entropy     entropy of the requested (background, pose) pairs, or of those read in the real shots, in bits
    leakage             part of the real shots whose caption named a class before it was cleaned, in [0, 1]
    fid_floor           FID of one half of the real images to the other: the FID where nothing differs
    kid_floor           KID of one half of the real images to the other
    captioner_accuracy  part of the test images that the captioner names rightly, in [0, 1]
    test_accuracy       test accuracy of the final training, in [0, 1]

The features are those of timm's Inception v3, for skyworld those of its mini ResNet, unless `extractor` names another
backbone. The real images are a class's pool of training images, its shots included (`against="train"`), at most twice
as many as are drawn; or its test images (`against="test"`).

FID, KID and diversity take the first n images of each set, n being the size of the smallest, so that methods can be
compared. The floor takes two halves of n real images each, or of half the real images where there are fewer than 2 n;
the column `n` holds the number.
"""
