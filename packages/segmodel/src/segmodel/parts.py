"""Names and integer labels of the face regions: the one place of this package that knows them."""

PARTS: tuple[str, ...] = ("eyebrows", "eyes", "nose", "upper_lip", "lower_lip")
"""The five parts that have their own re-centred shape model, in the order every tensor over parts uses."""

REGIONS: tuple[str, ...] = (*PARTS, "rest")
"""All six modelled regions; ``rest`` (skin) comes last."""

LABEL_IDS: dict[str, int] = {
    "background": 0,
    "rest": 1,
    "eyebrows": 2,
    "eyes": 3,
    "nose": 4,
    "upper_lip": 5,
    "lower_lip": 6,
}
"""Integer label of every region; 0 exists in label images only, never on a vertex."""
