"""Sound: what can be done to it, how it is read, packed and drawn, what hears it and what that is asked."""

from stec.modality import Modality

MODALITY = Modality(
    name="audio",
    api_version=1,
    parts={
        "action_space": {
            "temporal_window": "stec_audio.actions:TemporalWindow",
            "gain": "stec_audio.nuisances:Gain",
            "noise": "stec_audio.nuisances:Noise",
            "band_pass": "stec_audio.nuisances:BandPass",
        },
        "encoder": {
            "cpc": "stec_audio.encoders:Cpc",
            "mfcc": "stec_audio.mfcc:Mfcc",
        },
        "decoder": {
            "window": "stec_audio.decode:Window",
        },
        "packer": {
            "librispeech": "stec_audio.packers:LibriSpeech",
            "audio_folder": "stec_audio.folders:AudioFolder",
            "espeak": "stec_audio.voices:Espeak",
        },
        "picture": {
            "windows": "stec_audio.pictures:Windows",
        },
        "probe": {
            "phones": "stec_audio.phones:Phones",
            "speaker": "stec_audio.speakers:Speaker",
        },
        "example": {
            "hums": "stec_audio.example:Hums",
        },
    },
)
