"""Names and integer ids of the face parts, and the label orders of others mapped onto them."""

PARTS = ("eyebrows", "eyes", "nose", "upper_lip", "lower_lip")
REGIONS = (*PARTS, "rest")
LABEL_IDS = {"background": 0, "rest": 1, "eyebrows": 2, "eyes": 3, "nose": 4, "upper_lip": 5, "lower_lip": 6}
