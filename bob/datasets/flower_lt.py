"""Flower-LT: the 8,189 pictures of Oxford Flowers-102 with a long tail, `flower_lt:50`.

The official split is not used: half of each class, drawn with the seed, is for training, the rest for val and test.
"""

from bob.datasets import Source, _longtail
from bob.datasets._files import Files, Pool
from bob.datasets._official import as_published, matlab

__all__ = ["NAMES", "dataset"]

_NAMES = """
    pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon
    orchid, bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow
    iris, globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily,
    pincushion flower, fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless
    gentian, artichoke, sweet william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly,
    ruby-lipped cattleya, cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword
    lily, poinsettia, bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia,
    wild pansy, primula, sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink-yellow
    dahlia?, cautleya spicata, japanese anemone, black-eyed susan, silverbush, californian poppy, osteospermum,
    spring crocus, bearded iris, windflower, tree poppy, gazania, azalea, water lily, rose, thorn apple, morning
    glory, passion flower, lotus, toad lily, anthurium, frangipani, clematis, hibiscus, columbine, desert-rose, tree
    mallow, magnolia, cyclamen, watercress, canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea,
    camellia, mallow, mexican petunia, bromelia, blanket flower, trumpet creeper, blackberry lily
"""
NAMES = tuple(" ".join(_NAMES.split()).split(", "))
"""By official number: the commonly used list, without its stray blanks; the archive has no names."""


def _read(argument: str) -> Files:
    factor, folder = _longtail.argument("flower_lt", argument)
    root = dataset.root(folder)
    pictures: dict[int, list[str]] = {number: [] for number in range(1, len(NAMES) + 1)}
    with as_published(root):
        for number, label in enumerate(matlab(root / "imagelabels.mat", "labels").ravel(), start=1):
            pictures[int(label)].append(f"jpg/image_{number:05d}.jpg")
    return Files(
        name=f"flower_lt:{factor}",
        descriptor="flower",
        class_names=NAMES,
        val=_longtail.VAL,
        medium=(10, 30),
        root=root,
        pools=tuple(Pool(train=tuple(paths)) for paths in pictures.values()),
        tail=_longtail.counts([len(paths) // 2 for paths in pictures.values()], factor),
    )


dataset = Source(
    title="Flower-LT",
    folder="flowers-102",
    wants=("imagelabels.mat", "jpg"),
    origin=(
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/imagelabels.mat",
    ),
    licence="none stated by its authors; the pictures are their photographers'",
    read=_read,
)
