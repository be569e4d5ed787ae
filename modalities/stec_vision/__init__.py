"""Images: what can be done to them, how they are read, packed and drawn, and the networks that see them."""

from stec.modality import Modality

MODALITY = Modality(
    name="vision",
    api_version=1,
    parts={
        "action_space": {
            "affine_crop": "stec_vision.actions:AffineCrop",
            "background": "stec_vision.saliency:Background",
            "quarter_turn": "stec_vision.quarter_turn:QuarterTurn",
            "color_jitter": "stec_vision.photometry:ColorJitter",
            "grayscale": "stec_vision.photometry:Grayscale",
            "gaussian_blur": "stec_vision.photometry:GaussianBlur",
            "solarize": "stec_vision.photometry:Solarize",
        },
        "encoder": {
            "resnet": "stec_vision.encoders:ResNet",
            "timm": "stec_vision.timm_encoder:Timm",
        },
        "decoder": {
            "image": "stec_vision.decode:Image",
            "image_crop": "stec_vision.decode:ImageCrop",
        },
        "packer": {
            "image_folder": "stec_vision.packers:ImageFolder",
            "npz": "stec_vision.packers:Npz",
            "cifar": "stec_vision.archives:Cifar",
            "stl10": "stec_vision.archives:Stl10",
            "patches": "stec_vision.patches:Patches",
        },
        "picture": {
            "boxes": "stec_vision.pictures:ReportPictures",
        },
        "example": {
            "blots": "stec_vision.example:Blots",
        },
    },
)
