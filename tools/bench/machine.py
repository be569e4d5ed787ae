"""What was measured on: numbers of one machine say nothing about another, ratios more."""

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from stec.cores import cores

_PACKAGES = {
    "torch": "torch",
    "torchvision": "torchvision",
    "torchaudio": "torchaudio",
    "Pillow": "pillow",
    "OpenCV": "opencv-python-headless",
    "soundfile": "soundfile",
    "webdataset": "webdataset",
    "lightly": "lightly",
    "kornia": "kornia",
    "DALI": "nvidia-dali-cuda120",
    "torchcodec": "torchcodec",
}


def described() -> str:
    """Processor, cores, memory, GPU and versions, in two lines of text."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    versions = ", ".join(f"{name} {found}" for name, package in _PACKAGES.items() if (found := _version(package)))
    return (
        f"{_processor()}, {cores()} cores, {memory:.0f} GiB, {gpu}; {datetime.date.today()}.\n"
        f"Installed: Python {platform.python_version()}, {versions}."
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Its name, as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
