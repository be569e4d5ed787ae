"""A network that sees: a ResNet with torchvision's names.

Legend: B images [B, 3, H, W], float in [0, 1].
"""

from torch import Tensor, nn

from stec.catalogue import nearest
from stec.encoder import Encoder, Features
from stec.errors import UsageError

_LAYERS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}
_STEMS = ("cifar", "stl", "imagenet")
TAKES = "images [B, 3, H, W] in [0, 1]"


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class _Block(nn.Module):
    """What both blocks share: a residual branch ending in `last_norm`, and a shortcut."""

    expansion: int
    last_norm: str

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__()
        outputs = planes * self.expansion
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(_conv(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.branch(x) + shortcut)


class _Basic(_Block):
    """3x3, 3x3."""

    expansion = 1
    last_norm = "bn2"

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__(inputs, planes, stride)
        self.conv1, self.bn1 = _conv(inputs, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv(planes, planes, 3), nn.BatchNorm2d(planes)

    def branch(self, x: Tensor) -> Tensor:
        return self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))


class _Bottleneck(_Block):
    """1x1, 3x3 (which carries the stride), 1x1 to four times the planes."""

    expansion = 4
    last_norm = "bn3"

    def __init__(self, inputs: int, planes: int, stride: int):
        super().__init__(inputs, planes, stride)
        self.conv1, self.bn1 = _conv(inputs, planes, 1), nn.BatchNorm2d(planes)
        self.conv2, self.bn2 = _conv(planes, planes, 3, stride), nn.BatchNorm2d(planes)
        self.conv3, self.bn3 = _conv(planes, planes * 4, 1), nn.BatchNorm2d(planes * 4)

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn3(self.conv3(self.relu(self.bn2(self.conv2(x)))))


class ResNet(Encoder):
    """ResNet-18/34/50 (He et al. 2016, stride on the 3x3); a torchvision state dict without `fc` loads strictly.

    stem: "cifar" 3x3 stride 1; "stl" 7x7 stride 2; "imagenet" 7x7 stride 2 and max pooling. width: planes of the first
    layer (torchvision: 64). zero_init_residual: the last gamma of every branch starts at 0. taps: which of
    layer1..layer4 to give besides the pooled output, each averaged over space to [B, E].
    """

    takes = TAKES
    prefix = ""
    """What a name of the state dict has in front of torchvision's name."""

    def __init__(
        self,
        *,
        depth: int = 18,
        stem: str = "cifar",
        width: int = 64,
        zero_init_residual: bool = False,
        taps: list[str] | None = None,
    ):
        super().__init__()
        if depth not in _LAYERS:
            raise UsageError(
                f"encoder.depth={depth} is not a ResNet of ours: choose one of {', '.join(map(str, _LAYERS))}."
            )
        if stem not in _STEMS:
            raise UsageError(f"encoder.stem={stem!r} is unknown: choose one of {', '.join(_STEMS)}.")
        if width < 1:
            raise UsageError(f"encoder.width={width} must be at least 1 (torchvision's is 64).")
        block: type[_Block] = _Bottleneck if depth >= 50 else _Basic
        kernel, stride = (3, 1) if stem == "cifar" else (7, 2)
        self.conv1, self.bn1, self.relu = _conv(3, width, kernel, stride), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1) if stem == "imagenet" else nn.Identity()
        widths, inputs = {}, width
        for number, blocks in enumerate(_LAYERS[depth]):
            planes = width * 2**number
            layer = [block(inputs, planes, 1 if number == 0 else 2)]
            inputs = planes * block.expansion
            layer += [block(inputs, planes, 1) for _ in range(blocks - 1)]
            self.add_module(f"layer{number + 1}", nn.Sequential(*layer))
            widths[f"layer{number + 1}"] = inputs
        self.depth, self.taps = depth, tuple(taps or ())
        for name in self.taps:
            if name not in widths:
                raise UsageError(f"encoder.taps: {name!r} is unknown: {nearest(name, widths)}")
        self.dims = {"pooled": inputs, **{name: widths[name] for name in self.taps}}
        self._initialise(zero_init_residual)

    def _initialise(self, zero_init_residual: bool) -> None:
        """Normal convolutions with standard deviation sqrt(1 / fan in), as the paper's code; norms at 1 and 0."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            elif isinstance(module, _Block) and zero_init_residual:
                nn.init.zeros_(module.get_submodule(module.last_norm).weight)  # type: ignore[arg-type]

    def loading_lines(self, file: str) -> list[str]:
        """Python that loads an exported file into torchvision's model (and timm's); a remark if theirs differ."""
        width, kernel, name = self.conv1.out_channels, self.conv1.kernel_size[0], f"resnet{self.depth}"
        if width != 64:
            return [f"# torchvision and timm have this network with encoder.width=64 only; this one has {width}"]
        lines = ["# images in [0, 1] as they are, no mean and deviation taken off"]
        lines += ["import torch, torchvision", "from safetensors.torch import load_file"]
        lines += [f"model = torchvision.models.{name}()", "model.fc = torch.nn.Identity()"]
        if kernel == 3:
            lines.append("model.conv1 = torch.nn.Conv2d(3, 64, 3, padding=1, bias=False)")
        if isinstance(self.maxpool, nn.Identity):
            lines.append("model.maxpool = torch.nn.Identity()")
        lines.append(f"model.load_state_dict(load_file({file!r}))")
        if isinstance(self.maxpool, nn.MaxPool2d):
            lines += ["import timm", f"model = timm.create_model({name!r}, num_classes=0, checkpoint_path={file!r})"]
        return lines

    def forward(self, x: Tensor) -> Features:
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        layers: dict[str, Tensor] = {}
        for name in ("layer1", "layer2", "layer3", "layer4"):
            x = self.get_submodule(name)(x)
            if name in self.taps:
                layers[name] = x.mean(dim=(2, 3))
        return Features(x.mean(dim=(2, 3)), layers=layers or None)
