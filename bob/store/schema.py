"""Schemas of the Parquet tables: each column's name, type, unit and meaning. Long format, never wide.

A column's meaning and unit are written into its Parquet metadata, so a file explains itself.
"""

import pyarrow as pa

__all__ = [
    "CAPTIONS",
    "CLAIMS",
    "FEATURES",
    "IMAGES",
    "METRICS",
    "OVERLAP",
    "PLAN",
    "RECOGNISED",
    "REJECTED",
    "REQUESTS",
    "RESULTS",
    "SCORES",
    "SHOTS",
    "TABLES",
]


def _column(name: str, kind: pa.DataType, meaning: str, unit: str = "") -> pa.Field:
    metadata = {"meaning": meaning, **({"unit": unit} if unit else {})}
    return pa.field(name, kind, nullable=False, metadata=metadata)


SHOTS = pa.schema(
    [
        _column("image_id", pa.string(), "unique within the data set"),
        _column("sha1", pa.string(), "SHA-1 of the file's bytes, hex"),
        _column("path", pa.string(), "below the data set's root, or a recipe to render"),
        _column("class_id", pa.int32(), "0-based"),
        _column("class_name", pa.string(), "as written in prompts"),
        _column("split", pa.string(), "train, val or test"),
        _column("width", pa.int32(), "of the picture", "pixel"),
        _column("height", pa.int32(), "of the picture", "pixel"),
    ]
)

CAPTIONS = pa.schema(
    [
        _column("image_id", pa.string(), "the shot that was read"),
        _column("background", pa.string(), "cleaned answer to the background question"),
        _column("pose", pa.string(), "cleaned answer to the pose question"),
        _column("background_raw", pa.string(), "what the model wrote"),
        _column("pose_raw", pa.string(), "what the model wrote"),
        _column("leaked", pa.bool_(), "an answer named a class, which was replaced by the descriptor"),
        _column("captioner", pa.string(), "registered name and checkpoint"),
        _column("revision", pa.string(), "of the checkpoint"),
        _column("prompt_version", pa.int32(), "of the questions and their cleaning"),
    ]
)

REQUESTS = pa.schema(
    [
        _column("request_id", pa.string(), "unique within a run: class id and index"),
        _column("class_id", pa.int32(), "0-based class to draw"),
        _column("index", pa.int32(), "0-based position among the images of its class"),
        _column("prompt", pa.string(), "what is drawn"),
        _column("negative_prompt", pa.string(), "what guidance leads away from"),
        _column("seed", pa.int64(), "of this image's own generator"),
        _column("kind", pa.string(), "text2img, img2img or circle"),
        _column("source_ids", pa.list_(pa.string()), "real images it starts from"),
        _column("strength", pa.float64(), "of img2img: the part of the schedule that is run", "1"),
        _column("guidance", pa.float64(), "classifier-free guidance scale", "1"),
        _column("steps", pa.int32(), "sampler steps", "step"),
        _column("scheduler", pa.string(), "default (the checkpoint's own), dpm or ddim"),
        _column(
            "switch_at", pa.float64(), "of circle: the part of the schedule before the prompt loses its background", "1"
        ),
        _column("label_ids", pa.list_(pa.int32()), "classes of the label"),
        _column("label_weights", pa.list_(pa.float64()), "their weights, sum 1", "1"),
        _column("background", pa.string(), "of the sampled context, empty if none"),
        _column("pose", pa.string(), "of the sampled context, empty if none"),
        _column("bank_row", pa.int32(), "row of the caption bank, -1 if none"),
        _column("adapter", pa.string(), "key of the adapter, empty for the bare checkpoint"),
    ]
)

IMAGES = pa.schema(
    [
        *REQUESTS,
        _column("image", pa.binary(), "encoded picture"),
        _column("format", pa.string(), "png"),
        _column("width", pa.int32(), "of the picture", "pixel"),
        _column("height", pa.int32(), "of the picture", "pixel"),
        _column("sha1", pa.string(), "SHA-1 of `image`, hex"),
        _column("checkpoint", pa.string(), "T2I checkpoint"),
        _column("seconds", pa.float64(), "device time of the image: its batch's divided by its size", "s"),
    ]
)

SCORES = pa.schema(
    [
        _column("request_id", pa.string(), "the image that was judged"),
        _column("score", pa.float64(), "CLIP's probability that it shows what it should", "1"),
        _column("clip", pa.string(), "what judged it"),
    ]
)

FEATURES = pa.schema(
    [
        _column("id", pa.string(), "image_id of a real image, request_id of a drawn one"),
        _column("class_id", pa.int32(), "0-based"),
        _column("features", pa.list_(pa.field("item", pa.float32(), nullable=False)), "what the extractor sees"),
    ]
)

RECOGNISED = pa.schema(
    [
        _column("image_id", pa.string(), "the real image that was shown"),
        _column("class_id", pa.int32(), "0-based, the true one"),
        _column("guess", pa.int32(), "class id that the captioner names, -1 if it names none"),
        pa.field(
            "log_likelihood",
            pa.float64(),
            metadata={"meaning": "of that class's name; null where the captioner tells none", "unit": "nat"},
        ),
    ]
)

METRICS = pa.schema(
    [
        _column("dataset", pa.string(), "with its argument"),
        _column("shots", pa.int32(), "training images per class; 0: as the long tail says", "image"),
        _column("method", pa.string(), "with its switches; real: of real images alone"),
        _column("checkpoint", pa.string(), "T2I checkpoint"),
        _column("captioner", pa.string(), "what read the shots' contexts"),
        _column("seed", pa.int64(), "of the run"),
        _column("images", pa.string(), "folder of the drawn images, empty where there are none"),
        _column("class_id", pa.int32(), "0-based; -1: of all classes"),
        _column("class_name", pa.string(), "empty: of all classes"),
        _column("metric", pa.string(), "fid, fid_floor, kid, kid_floor, diversity, context_entropy, leakage ..."),
        _column("value", pa.float64(), "in the metric's own unit: see bob.paper.figures"),
        _column("n", pa.int32(), "images of each set that the value is from", "image"),
    ]
)

PLAN = pa.schema(
    [
        _column("step", pa.string(), "caption, finetune, generate, embed, recognise, sweep or final"),
        _column("target", pa.string(), "the file whose presence means that the unit is done"),
        _column("label", pa.string(), "for people: what this is"),
        _column("size", pa.int32(), "how much work it is, counted in `unit`"),
        _column("unit", pa.string(), "shots, steps (of an optimiser), images or epochs"),
    ]
)

REJECTED = pa.schema(
    [
        _column("row_id", pa.string(), "image_id or request_id"),
        _column("step", pa.string(), "the step that met it"),
        _column("error", pa.string(), "type of the exception"),
        _column("message", pa.string(), "of the exception"),
    ]
)

RESULTS = pa.schema(
    [
        _column("run", pa.string(), "key of the run"),
        _column("dataset", pa.string(), "with its argument"),
        _column("shots", pa.int32(), "training images per class; 0: as the long tail says", "image"),
        _column("method", pa.string(), "with its switches"),
        _column("checkpoint", pa.string(), "T2I checkpoint"),
        _column("backbone", pa.string(), "downstream model"),
        _column("seed", pa.int64(), "of the run"),
        _column("phase", pa.string(), "sweep or final"),
        _column("lr", pa.float64(), "peak learning rate", "1"),
        _column("weight_decay", pa.float64(), "of the optimiser", "1"),
        _column("lambda", pa.float64(), "weight of the real loss (Eq. 1); 1 without synthetic images", "1"),
        _column("layer_decay", pa.float64(), "learning-rate factor per layer; 1 for none", "1"),
        _column("epoch", pa.int32(), "1-based"),
        _column("split", pa.string(), "train, val or test"),
        _column("metric", pa.string(), "accuracy, loss, accuracy_class_mean, accuracy_many, class_accuracy/<id> ..."),
        _column("value", pa.float64(), "accuracies lie in [0, 1]", "1"),
        _column("n", pa.int32(), "images that the value is a mean over", "image"),
    ]
)

TABLES = pa.schema(
    [
        _column("table", pa.string(), "its name in the paper, or the experiment's"),
        _column("row", pa.string(), "method, with checkpoint and backbone"),
        _column("column", pa.string(), "data set and shots"),
        pa.field("ours", pa.float64(), metadata={"meaning": "mean over seeds", "unit": "%"}),
        pa.field("ours_std", pa.float64(), metadata={"meaning": "sample deviation over seeds", "unit": "%"}),
        _column("seeds", pa.int32(), "how many runs the mean is over"),
        pa.field("paper", pa.float64(), metadata={"meaning": "what the paper prints", "unit": "%"}),
        pa.field("difference", pa.float64(), metadata={"meaning": "ours - paper", "unit": "%"}),
    ]
)

CLAIMS = pa.schema(
    [
        _column("statement", pa.string(), "what is counted or subtracted"),
        _column("table", pa.string(), "the table that it is about"),
        _column("says", pa.string(), "what the paper says of it, and where"),
        _column("unit", pa.string(), "of the numbers"),
        pa.field("paper", pa.float64(), metadata={"meaning": "recomputed from the paper's cells"}),
        pa.field("ours", pa.float64(), metadata={"meaning": "recomputed from ours"}),
    ]
)

OVERLAP = pa.schema(
    [
        _column("class_name", pa.string(), "a breed of Oxford-IIIT Pets"),
        _column("imagenet_id", pa.string(), "the synset of ImageNet's class; empty if there is none"),
        _column("imagenet_name", pa.string(), "what ImageNet calls it"),
        pa.field(
            "paper", pa.string(), metadata={"meaning": "the paper's Table 7: a synset, empty, or null: not listed"}
        ),
    ]
)
