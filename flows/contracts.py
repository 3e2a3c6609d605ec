"""The Parquet contracts: which columns each table has, of which kind. Extend a table here and raise its version."""

from dataclasses import dataclass, field
from typing import Literal

PARTS = ("eyebrows", "eyes", "nose", "upper_lip", "lower_lip")
REGIONS = (*PARTS, "rest")

Kind = Literal["scalar", "tensor", "mesh", "label_image", "string", "binary"]


@dataclass(frozen=True)
class ColumnSpec:
    """One column: how a row's value is stored.

    ``scalar`` is one number per row, ``tensor`` a ``fixed_shape_tensor`` (``shape`` None: taken from the data),
    ``mesh`` a float32 array as raw bytes, ``label_image`` a uint8 image as PNG bytes, ``string`` text, ``binary``
    opaque bytes. An ``optional`` column may be left out of a file.
    """

    kind: Kind
    dtype: str = "float32"
    shape: tuple[int, ...] | None = None
    unit: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Contract:
    """A table's name, version and columns; a reader refuses a file of another name or version."""

    name: str
    version: int
    columns: dict[str, ColumnSpec] = field(default_factory=dict)

    @property
    def has_mesh(self) -> bool:
        """Whether a column holds meshes, which asks for small row groups."""
        return any(spec.kind == "mesh" for spec in self.columns.values())


def scalar(dtype: str = "float32", unit: str = "", *, optional: bool = False) -> ColumnSpec:
    """One number per row: a numpy dtype name such as ``int64``, ``float64`` or ``bool``."""
    return ColumnSpec("scalar", dtype, None, unit, optional)


def tensor(*shape: int, dtype: str = "float32", unit: str = "", optional: bool = False) -> ColumnSpec:
    """One array per row, of this shape; ``tensor()`` takes the shape from the data."""
    return ColumnSpec("tensor", dtype, shape or None, unit, optional)


def mesh(unit: str = "mm", *, optional: bool = False) -> ColumnSpec:
    """One float32 vertex array per row, stored as bytes: 6 to 12 times faster at random reads than a tensor."""
    return ColumnSpec("mesh", "float32", None, unit, optional)


def label_image(*, optional: bool = False) -> ColumnSpec:
    """One uint8 label image per row, stored as PNG; all images of one file have one size."""
    return ColumnSpec("label_image", "uint8", None, "", optional)


def string(*, optional: bool = False) -> ColumnSpec:
    """One text per row."""
    return ColumnSpec("string", "str", None, "", optional)


def binary(*, optional: bool = False) -> ColumnSpec:
    """Opaque bytes per row."""
    return ColumnSpec("binary", "bytes", None, "", optional)


CONTRACTS: dict[str, Contract] = {
    contract.name: contract
    for contract in (
        Contract(
            "topology_vertices",
            1,
            {
                "template": tensor(3, unit="mm"),
                "label": scalar("int64"),
                "confidence": scalar(),
                "ballots": tensor(7),
            },
        ),
        Contract("topology_triangles", 1, {"triangle": tensor(3, dtype="int64")}),
        Contract("topology_landmarks", 1, {"name": string(), "vertex": scalar("int64")}),
        Contract(
            "faces",
            1,
            {
                "face_id": string(),
                "source": string(),
                "person": string(optional=True),
                "split": string(),
                "identity": tensor(),
                "expression": tensor(),
                "angles": tensor(3, unit="rad"),
                "translation": tensor(3, unit="mm"),
                "true_identity": tensor(optional=True),
                "landmarks": tensor(68, 2, unit="px"),
                "landmark_residual": scalar(unit="px"),
                "clean": scalar("int64"),
                "has_mask": scalar("int64"),
                "image_sha256": string(),
                "crop_scale": tensor(2),
                "crop_offset": tensor(2, unit="px"),
            },
        ),
        Contract("crops", 1, {"face_id": string(), "image": binary()}),
        Contract("shapes", 1, {"face_id": string(), "vertices": mesh()}),
        Contract(
            "masks",
            2,
            {
                "face_id": string(),
                "source": string(),
                "labels": label_image(),
                "ignore": label_image(),
                "area": tensor(len(PARTS), unit="px"),
            },
        ),
        Contract("encodings", 2, {"face_id": string(), "encoder": string(), "key": string(), "embedding": tensor()}),
        Contract("latents", 1, {"face_id": string(), **{f"z_{region}": tensor() for region in REGIONS}}),
        Contract("face_latents", 1, {"face_id": string(), "z_face": tensor()}),
        Contract("offsets", 1, {"face_id": string(), "offset": tensor(len(PARTS), 2, unit="mm")}),
        Contract("measurements", 1, {"face_id": string(), **{region: tensor(unit="mm") for region in REGIONS}}),
        Contract(
            "controllers",
            1,
            {
                "part": string(),
                "name": string(),
                "unit": string(),
                "mean": scalar("float64", unit="mm"),
                "sigma": scalar("float64", unit="mm"),
                "response": scalar("float64"),
                "leak": scalar("float64"),
                "r2": scalar("float64"),
                "collinear": string(),
                "low": scalar(),
                "high": scalar(),
                "latent_size": scalar("int64"),
                "mapping": tensor(dtype="float64"),
                "mean_latent": tensor(dtype="float64"),
            },
        ),
        Contract(
            "fits",
            3,
            {
                "face_id": string(),
                "method": string(),
                "iou_before": tensor(len(PARTS)),
                "iou_after": tensor(len(PARTS)),
                "intersection_before": tensor(len(PARTS), unit="px"),
                "union_before": tensor(len(PARTS), unit="px"),
                "intersection_after": tensor(len(PARTS), unit="px"),
                "union_after": tensor(len(PARTS), unit="px"),
                "labels_before": label_image(optional=True),
                "labels_after": label_image(optional=True),
                "controls": tensor(),
                "offsets": tensor(len(PARTS), 2, unit="mm"),
                "expression": tensor(),
                "angles": tensor(3, unit="rad"),
                "translation": tensor(3, unit="mm"),
                "flipped_fraction": scalar(),
                "moved_mean": scalar(unit="mm"),
                "moved_p99": scalar(unit="mm"),
                "parts_rms": scalar(unit="mm"),
                "parts_p99": scalar(unit="mm"),
                "largest_control": scalar(),
                "latent_rms": scalar(unit="sigma"),
                "latent_beyond_3": scalar(),
                "moved_offset_rms": scalar(unit="mm"),
                "iterations": scalar("int64"),
                "seconds": scalar(unit="s", optional=True),
                "set_aside": string(),
            },
        ),
        Contract(
            "overlaps",
            2,
            {
                "face_id": string(),
                "person": string(),
                "model": string(),
                "step": string(),
                "reference": string(),
                **{
                    key: tensor(len(PARTS), unit="px")
                    for key in ("intersection", "union", "predicted_area", "target_area")
                },
            },
        ),
        Contract(
            "shape_errors",
            1,
            {
                "face_id": string(),
                "person": string(),
                "model": string(),
                "step": string(),
                "reference": string(),
                "rms": tensor(len(REGIONS), unit="mm"),
                "rms_face": scalar(unit="mm"),
            },
        ),
        Contract(
            "drawn_labels", 1, {"face_id": string(), "model": string(), "step": string(), "labels": label_image()}
        ),
        Contract(
            "registration",
            1,
            {
                "subject": string(),
                "right": scalar("int64", unit="px"),
                "down": scalar("int64", unit="px"),
                "dilated": scalar("int64", unit="px"),
                "iou": tensor(len(PARTS)),
                "n": tensor(len(PARTS), dtype="int64"),
            },
        ),
        Contract(
            "edit_reach",
            1,
            {
                "model": string(),
                "region": string(),
                **{key: scalar(unit="mm") for key in ("inside", "outside", "beyond")},
                **{key: scalar(unit="mm") for key in ("max_outside", "max_beyond", "max_elsewhere")},
                **{f"response_{key}": scalar() for key in ("mean", "min", "max")},
                "reach": tensor(unit="mm"),
            },
        ),
        Contract("pictures", 1, {"section": string(), "caption": string(), "image": binary()}),
        Contract("rejected", 1, {"path": string(), "code": string(), "detail": string()}),
        Contract(
            "metrics",
            1,
            {
                "method": string(),
                "part": string(),
                "metric": string(),
                "value": scalar("float64"),
                "n": scalar("int64"),
            },
        ),
        Contract(
            "history",
            1,
            {"model": string(), "epoch": scalar("int64"), "metric": string(), "value": scalar("float64")},
        ),
    )
}
