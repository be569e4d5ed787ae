"""S-TEC: self-supervised learning through efference copies. The core; it knows no modality."""

__version__ = "0.1.0"
