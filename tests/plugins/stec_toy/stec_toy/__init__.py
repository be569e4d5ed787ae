from stec.modality import Modality

MODALITY = Modality(
    name="toy",
    api_version=1,
    parts={
        "action_space": {"motion_window": "stec_toy.actions:Window", "motion_gain": "stec_toy.actions:Gain"},
        "decoder": {"motion": "stec_toy.signal:Motion"},
        "packer": {"motion": "stec_toy.signal:MadeUp"},
        "example": {"motion": "stec_toy.signal:MadeUp"},
        "encoder": {"motion": "stec_toy.network:Net"},
        "probe": {"activity": "stec_toy.network:Activity"},
        "picture": {"motion": "stec_toy.signal:Curves"},
    },
)
