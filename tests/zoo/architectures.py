"""Public architectures at their packages' defaults, with the weights that they are born with: by name, what makes one,
and the size of images to try it at."""

from collections.abc import Callable
from typing import Any

import torch
from papers import PAPERS
from torch import nn

# PyTorch's own torchvision asks for a torch with CUDA; without its operators, which no segmenter needs, it imports.
_LIBRARY = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _LIBRARY.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")


class Output(nn.Module):
    """One entry of what a module gives."""

    def __init__(self, module: nn.Module, key: str | int):
        super().__init__()
        self.module, self.key = module, key

    def forward(self, x):
        return self.module(x)[self.key]


def smp(name: str, encoder: str, size: int = 64, **more: Any) -> tuple[Callable[[], nn.Module], int]:
    def make() -> nn.Module:
        import segmentation_models_pytorch

        settings = {"encoder_name": encoder, "encoder_weights": None, "classes": 2, **more}
        return getattr(segmentation_models_pytorch, name)(**settings)

    return make, size


def torchvision(name: str) -> tuple[Callable[[], nn.Module], int]:
    def make() -> nn.Module:
        from torchvision.models import segmentation

        return Output(getattr(segmentation, name)(weights=None, weights_backbone=None, num_classes=2), "out")

    return make, 64


def on_shufflenet() -> nn.Module:
    from torchvision.models import shufflenet_v2_x1_0
    from torchvision.models._utils import IntermediateLayerGetter
    from torchvision.models.segmentation.fcn import FCN, FCNHead

    body = IntermediateLayerGetter(shufflenet_v2_x1_0(weights=None), {"stage4": "out"})
    return Output(FCN(body, FCNHead(464, 2)), "out")


def monai(name: str, several: bool = False, **more: Any) -> tuple[Callable[[], nn.Module], int]:
    """`several`: it gives a list of maps."""

    def make() -> nn.Module:
        from monai.networks import nets

        module = getattr(nets, name)(spatial_dims=2, in_channels=3, out_channels=2, **more)
        return Output(module, 0) if several else module

    return make, 64


def transformers(model: str, config: str, size: int, **more: Any) -> tuple[Callable[[], nn.Module], int]:
    def make() -> nn.Module:
        import transformers as package

        nested = {key: value() if callable(value) else value for key, value in more.items()}
        return Output(getattr(package, model)(getattr(package, config)(num_labels=2, **nested)), "logits")

    return make, size


def _swin() -> Any:
    import transformers as package

    stages = [f"stage{index}" for index in range(1, 5)]
    return package.SwinConfig(image_size=128, embed_dim=24, depths=[2] * 4, num_heads=[1, 2, 4, 8], out_features=stages)


def _convnext() -> Any:
    import transformers as package

    stages = [f"stage{index}" for index in range(1, 5)]
    return package.ConvNextConfig(depths=[1] * 4, hidden_sizes=[16, 32, 64, 128], out_features=stages)


FOUR_STAGES = {"encoder_depth": 4, "decoder_channels": (128, 64, 32, 16)}
MONAI = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2), "num_res_units": 2}

ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    **PAPERS,
    "smp DeepLabV3, ResNet-34": smp("DeepLabV3", "resnet34"),
    "smp DeepLabV3+, MobileNetV2": smp("DeepLabV3Plus", "mobilenet_v2"),
    "smp DeepLabV3+, ResNet-34": smp("DeepLabV3Plus", "resnet34"),
    "smp DPT, ViT-tiny": smp("DPT", "tu-vit_tiny_patch16_224", 224),
    "smp FPN, EfficientNet-B3": smp("FPN", "efficientnet-b3"),
    "smp FPN, ResNet-34": smp("FPN", "resnet34"),
    "smp FPN, MobileNetV2": smp("FPN", "mobilenet_v2"),
    "smp Linknet, ResNet-34": smp("Linknet", "resnet34"),
    "smp Linknet, MobileNetV2": smp("Linknet", "mobilenet_v2"),
    "smp MAnet, ResNet-34": smp("MAnet", "resnet34"),
    "smp PAN, ResNet-34": smp("PAN", "resnet34", 128),
    "smp PSPNet, ResNet-34": smp("PSPNet", "resnet34"),
    "smp PSPNet, MobileNetV2": smp("PSPNet", "mobilenet_v2"),
    "smp Segformer, MiT-B0": smp("Segformer", "mit_b0"),
    "smp Segformer, ResNet-34": smp("Segformer", "resnet34"),
    "smp U-Net, DenseNet-121": smp("Unet", "densenet121"),
    "smp U-Net, DPN-68": smp("Unet", "dpn68"),
    "smp U-Net, EfficientNet-B0": smp("Unet", "efficientnet-b0"),
    "smp U-Net, EfficientNet-lite0 (timm)": smp("Unet", "timm-tf_efficientnet_lite0"),
    "smp U-Net, MiT-B0": smp("Unet", "mit_b0"),
    "smp U-Net, MiT-B2": smp("Unet", "mit_b2"),
    "smp U-Net, MobileNetV2": smp("Unet", "mobilenet_v2"),
    "smp U-Net, MobileNetV3 large (timm)": smp("Unet", "timm-mobilenetv3_large_100"),
    "smp U-Net, MobileNetV4 small (timm)": smp("Unet", "tu-mobilenetv4_conv_small"),
    "smp U-Net, MobileOne-S0": smp("Unet", "mobileone_s0"),
    "smp U-Net, ResNet-34": smp("Unet", "resnet34"),
    "smp U-Net, ResNet-34, scSE": smp("Unet", "resnet34", decoder_attention_type="scse"),
    "smp U-Net, ResNet-34, one sigmoid channel": smp("Unet", "resnet34", classes=1, activation="sigmoid"),
    "smp U-Net, ResNeXt-50": smp("Unet", "resnext50_32x4d"),
    "smp U-Net, SE-ResNeXt-50": smp("Unet", "se_resnext50_32x4d"),
    "smp U-Net, RegNetY-016 (timm)": smp("Unet", "timm-regnety_016"),
    "smp U-Net, ResNeSt-14 (timm)": smp("Unet", "timm-resnest14d"),
    "smp U-Net, Res2Net-50 (timm)": smp("Unet", "timm-res2net50_26w_4s"),
    "smp U-Net, SK-ResNet-18 (timm)": smp("Unet", "timm-skresnet18"),
    "smp U-Net, ConvNeXt-atto (timm)": smp("Unet", "tu-convnext_atto", **FOUR_STAGES),
    "smp U-Net, HRNet-W18 small (timm)": smp("Unet", "tu-hrnet_w18_small"),
    "smp U-Net, RepVGG-A0 (timm)": smp("Unet", "tu-repvgg_a0"),
    "smp U-Net, GhostNet (timm)": smp("Unet", "tu-ghostnet_100"),
    "smp U-Net, Darknet-53 (timm)": smp("Unet", "tu-darknet53"),
    "smp U-Net, VGG-16": smp("Unet", "vgg16_bn"),
    "smp U-Net, Xception": smp("Unet", "xception"),
    "smp U-Net, VGG-13": smp("Unet", "vgg13"),
    "smp U-Net, Inception-v4": smp("Unet", "inceptionv4", 128),
    "smp U-Net, CSPDarknet-53 (timm)": smp("Unet", "tu-cspdarknet53"),
    "smp U-Net, DLA-34 (timm)": smp("Unet", "tu-dla34"),
    "smp U-Net, ECA-ResNet-33 (timm)": smp("Unet", "tu-eca_resnet33ts"),
    "smp U-Net, EfficientViT-B0 (timm)": smp("Unet", "tu-efficientvit_b0", **FOUR_STAGES),
    "smp U-Net, ESE-VoVNet-19 (timm)": smp("Unet", "tu-ese_vovnet19b_dw"),
    "smp U-Net, FastViT-T8 (timm)": smp("Unet", "tu-fastvit_t8", **FOUR_STAGES),
    "smp U-Net, HGNetV2-B0 (timm)": smp("Unet", "tu-hgnetv2_b0", **FOUR_STAGES),
    "smp U-Net, InceptionNeXt-atto (timm)": smp("Unet", "tu-inception_next_atto", **FOUR_STAGES),
    "smp U-Net, LCNet-050 (timm)": smp("Unet", "tu-lcnet_050"),
    "smp U-Net, MambaOut-femto (timm)": smp("Unet", "tu-mambaout_femto", **FOUR_STAGES),
    "smp U-Net, MixNet-S (timm)": smp("Unet", "tu-mixnet_s"),
    "smp U-Net, MobileNetV4 hybrid (timm)": smp("Unet", "tu-mobilenetv4_hybrid_medium"),
    "smp U-Net, PoolFormerV2-S12 (timm)": smp("Unet", "tu-poolformerv2_s12", **FOUR_STAGES),
    "smp U-Net, PVTv2-B0 (timm)": smp("Unet", "tu-pvt_v2_b0", **FOUR_STAGES),
    "smp U-Net, RegNetX-002 (timm)": smp("Unet", "tu-regnetx_002"),
    "smp U-Net, RepViT-M0.9 (timm)": smp("Unet", "tu-repvit_m0_9", **FOUR_STAGES),
    "smp U-Net, ResNetV2-50 (timm)": smp("Unet", "tu-resnetv2_50"),
    "smp U-Net, StarNet-S1 (timm)": smp("Unet", "tu-starnet_s1", **FOUR_STAGES),
    "smp U-Net, TinyNet-E (timm)": smp("Unet", "tu-tinynet_e"),
    "smp U-Net++, ResNet-34": smp("UnetPlusPlus", "resnet34"),
    "smp U-Net++, EfficientNet-B0": smp("UnetPlusPlus", "efficientnet-b0"),
    "smp UPerNet, ResNet-34": smp("UPerNet", "resnet34"),
    "smp UPerNet, MiT-B0": smp("UPerNet", "mit_b0"),
    "torchvision DeepLabV3, MobileNetV3": torchvision("deeplabv3_mobilenet_v3_large"),
    "torchvision DeepLabV3, ResNet-50": torchvision("deeplabv3_resnet50"),
    "torchvision FCN, ResNet-50": torchvision("fcn_resnet50"),
    "torchvision FCN, ShuffleNetV2": (on_shufflenet, 64),
    "torchvision LR-ASPP, MobileNetV3": torchvision("lraspp_mobilenet_v3_large"),
    "MONAI AttentionUnet": monai("AttentionUnet", channels=(16, 32, 64), strides=(2, 2)),
    "MONAI BasicUNet": monai("BasicUNet"),
    "MONAI BasicUNet++": monai("BasicUNetPlusPlus", several=True),
    "MONAI DynUNet": monai("DynUNet", kernel_size=(3,) * 4, strides=(1, 2, 2, 2), upsample_kernel_size=(2,) * 3),
    "MONAI FlexibleUNet, EfficientNet-B0": monai("FlexibleUNet", backbone="efficientnet-b0"),
    "MONAI FlexibleUNet, ResNet-18": monai("FlexibleUNet", backbone="resnet18"),
    "MONAI HighResNet": monai("HighResNet"),
    "MONAI MedNeXt-S": monai("MedNeXtS"),
    "MONAI SegResNet": monai("SegResNet"),
    "MONAI SegResNetDS": monai("SegResNetDS", init_filters=16),
    "MONAI SwinUNETR": monai("SwinUNETR", feature_size=12),
    "MONAI UNet": monai("UNet", **MONAI),
    "MONAI UNet, batch norm": monai("UNet", norm="batch", **MONAI),
    "MONAI UNet, batch norm, ReLU": monai("UNet", norm="batch", act="relu", **MONAI),
    "MONAI UNETR": monai("UNETR", img_size=64, feature_size=16, hidden_size=192, mlp_dim=768, num_heads=3),
    "transformers MobileNetV2, DeepLabV3+": transformers(
        "MobileNetV2ForSemanticSegmentation", "MobileNetV2Config", 128
    ),
    "transformers MobileViT, DeepLabV3": transformers("MobileViTForSemanticSegmentation", "MobileViTConfig", 128),
    "transformers MobileViTV2, DeepLabV3": transformers(
        "MobileViTV2ForSemanticSegmentation", "MobileViTV2Config", 128
    ),
    "transformers SegFormer-B0": transformers("SegformerForSemanticSegmentation", "SegformerConfig", 64),
    "transformers BEiT": transformers(
        "BeitForSemanticSegmentation", "BeitConfig", 128, image_size=128, hidden_size=192, num_hidden_layers=4,
        num_attention_heads=3, intermediate_size=768, out_indices=[1, 2, 3, 4],
    ),
    "transformers UPerNet, ConvNeXt": transformers(
        "UperNetForSemanticSegmentation", "UperNetConfig", 128,
        backbone_config=_convnext, auxiliary_in_channels=64, hidden_size=64,
    ),
    "transformers UPerNet, Swin": transformers(
        "UperNetForSemanticSegmentation", "UperNetConfig", 128,
        backbone_config=_swin, auxiliary_in_channels=96, hidden_size=64,
    ),
}  # fmt: skip
