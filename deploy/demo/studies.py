"""Which files each hospital's edge sends."""

from pathlib import Path
from typing import Final

from deploy.demo.assets import head_template, sample_files
from deploy.demo.volumes import head_instances, phantom_instances, write_volume

# Real examinations, sent as they lie in the packages. No SOP Instance UID occurs twice within a hospital.
_NORTH_FILES: Final = (
    "693_J2KR.dcm",  # CT of a head, JPEG 2000
    "RG1_J2KR.dcm",  # radiograph of a chest, JPEG 2000
    "RG3_UNCR.dcm",  # radiograph of a tibia, uncompressed
    "MR2_J2KR.dcm",  # MR of a shoulder
    "color3d_jpeg_baseline.dcm",  # ultrasound in colour, 120 frames, JPEG
    "eCT_Supplemental.dcm",  # enhanced CT, two frames
    "emri_small_jpeg_2k_lossless.dcm",  # enhanced MR, ten frames
    "gdcm-US-ALOKA-16.dcm",  # ultrasound, palette colour
    "CT_small.dcm",
    "waveform_ecg.dcm",
    "test-SR.dcm",
)
_SOUTH_FILES: Final = (
    "explicit_VR-UN.dcm",  # CT of an abdomen, JPEG 2000
    "MR-SIEMENS-DICOM-WithOverlays.dcm",  # MR of an abdomen, with overlays
    "JPGLosslessP14SV1_1s_1f_8b.dcm",  # ultrasound, JPEG Lossless
    "US1_J2KR.dcm",  # ultrasound in colour, JPEG 2000
    "color-px.dcm",  # echocardiogram
    "J2K_pixelrep_mismatch.dcm",  # CT of a head
    "JPEG-LL.dcm",  # whole-body bone scan, JPEG Lossless
    "RG1_UNCR.dcm",  # radiograph of a chest, uncompressed
    "image_dfl.dcm",  # deflated
    "rtdose.dcm",
    "liver.dcm",  # segmentation
)


def files_of(tenant: str, assets: Path, made: Path) -> list[Path]:
    """The files of a hospital.

    Arguments:
        tenant: ``north`` or ``south``.
        assets: the unpacked package with the template.
        made: a folder for what is made here.

    Raises:
        KeyError: a file is not in its package.
    """
    samples = sample_files()
    if tenant == "north":
        volume = write_volume(head_instances(head_template(assets)), made / "head")
        return volume + [samples[name] for name in _NORTH_FILES]
    volume = write_volume(phantom_instances(), made / "phantom")
    return volume + [samples[name] for name in _SOUTH_FILES]
