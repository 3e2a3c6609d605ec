"""Face models, photographs, landmarks, encoders, 2D parsing masks and their transfer to 3D part labels."""

from dataset_builder.alignment import AlignedFace, CropTransform, align_face, five_points
from dataset_builder.assets import (
    ASSETS,
    AssetCorrupt,
    AssetMissing,
    AssetStatus,
    asset_folders,
    asset_path,
    describe_assets,
    fetch_asset,
    weights_file,
)
from dataset_builder.camera import CropCamera, apply_pose, rotation_matrix
from dataset_builder.deep3dmm import Deep3DMM
from dataset_builder.describe import FaceModelDescription, describe_face_model
from dataset_builder.detection import Detection, FaceDetector, detect_faces, largest_face
from dataset_builder.encoders import (
    FaceEncoder,
    MobileFaceNetEncoder,
    TorchEncoder,
    TrainableEncoder,
    load_encoder,
)
from dataset_builder.encoding_cache import Encodings, encode_missing, encoding_key, image_sha256
from dataset_builder.face_coefficients import FaceCoefficients
from dataset_builder.face_model import FaceModel
from dataset_builder.face_model_file import save_face_model
from dataset_builder.face_renderer import FaceRenderer
from dataset_builder.ict import eye_cap_vertices
from dataset_builder.label_report import RegionReport, label_report, vertex_areas
from dataset_builder.label_transfer import PartLabels, label_agreement, transfer_labels
from dataset_builder.landmark_fit import FaceEstimate, LandmarkEstimator
from dataset_builder.landmark_networks import LandmarkDetector
from dataset_builder.masks import (
    BISENET_CLASSES,
    CELEBAMASK_CLASSES,
    crop_ignore,
    crop_labels,
    labels_from_class_folder,
    labels_from_index_mask,
    read_mask,
)
from dataset_builder.mean_texture import mean_texture
from dataset_builder.models import face_model_path, load_face_model
from dataset_builder.normals import vertex_normals
from dataset_builder.parser_labels import PARSER_CLASSES, ParsedFaces, labels_of_classes, parsing_iou
from dataset_builder.parser_training import SmallParserSettings, train_parser
from dataset_builder.parsers import CelebAMaskFolder, FaceParser, NetworkParser, SyntheticTruth, load_parser
from dataset_builder.parts import LABEL_IDS, PARTS, REGIONS
from dataset_builder.photos import PHOTO_SUFFIXES, Photo, PhotoFile, Rejected, list_photos, read_photo, read_photos
from dataset_builder.preprocessing import Preprocessing
from dataset_builder.procedural import (
    SyntheticPhoto,
    build_procedural_face,
    make_photos,
    render_photo,
    sample_appearance,
)
from dataset_builder.rendered_votes import sweep_faces, vote_by_rendering
from dataset_builder.small_encoder import SmallEncoder, SmallEncoderSettings, train_small_encoder
from dataset_builder.small_parser import SmallParser
from dataset_builder.spherical_harmonics import sh_shading

__all__ = [
    "ASSETS",
    "BISENET_CLASSES",
    "CELEBAMASK_CLASSES",
    "LABEL_IDS",
    "PARSER_CLASSES",
    "PARTS",
    "PHOTO_SUFFIXES",
    "REGIONS",
    "AlignedFace",
    "AssetCorrupt",
    "AssetMissing",
    "AssetStatus",
    "CelebAMaskFolder",
    "CropCamera",
    "CropTransform",
    "Deep3DMM",
    "Detection",
    "Encodings",
    "FaceCoefficients",
    "FaceDetector",
    "FaceEncoder",
    "FaceEstimate",
    "FaceModel",
    "FaceModelDescription",
    "FaceParser",
    "FaceRenderer",
    "LandmarkDetector",
    "LandmarkEstimator",
    "MobileFaceNetEncoder",
    "NetworkParser",
    "ParsedFaces",
    "PartLabels",
    "Photo",
    "PhotoFile",
    "Preprocessing",
    "RegionReport",
    "Rejected",
    "SmallEncoder",
    "SmallEncoderSettings",
    "SmallParser",
    "SmallParserSettings",
    "SyntheticPhoto",
    "SyntheticTruth",
    "TorchEncoder",
    "TrainableEncoder",
    "align_face",
    "apply_pose",
    "asset_folders",
    "asset_path",
    "build_procedural_face",
    "crop_ignore",
    "crop_labels",
    "describe_assets",
    "describe_face_model",
    "detect_faces",
    "encode_missing",
    "encoding_key",
    "eye_cap_vertices",
    "face_model_path",
    "fetch_asset",
    "five_points",
    "image_sha256",
    "label_agreement",
    "label_report",
    "labels_from_class_folder",
    "labels_from_index_mask",
    "labels_of_classes",
    "largest_face",
    "list_photos",
    "load_encoder",
    "load_face_model",
    "load_parser",
    "make_photos",
    "mean_texture",
    "parsing_iou",
    "read_mask",
    "read_photo",
    "read_photos",
    "render_photo",
    "rotation_matrix",
    "sample_appearance",
    "save_face_model",
    "sh_shading",
    "sweep_faces",
    "train_parser",
    "train_small_encoder",
    "transfer_labels",
    "vertex_areas",
    "vertex_normals",
    "vote_by_rendering",
    "weights_file",
]
