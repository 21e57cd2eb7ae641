"""Why a file is set aside: a closed list of codes, each with a sentence true of the file."""

from lineage.errors import BadInput

REASONS = {
    "not_an_image": "The content is neither DICOM, PNG, JPEG nor NIfTI.",
    "unreadable_header": "The header breaks DICOM's or the image format's encoding.",
    "incomplete_header": "The header lacks an attribute that every image must have.",
    "unreadable_file": "The file could not be opened or read.",
    "executable_preamble": "The preamble is a program's or an archive's, not DICOM's.",
    "truncated": "The file ends before the data that its header announces.",
    "too_deep": "Sequences are nested deeper than we follow.",
    "too_large": "The file, once unpacked, needs more memory than one image may.",
    "too_slow": "Reading took longer than the time that one file may take.",
    "decoder_aborted": "A decoder ended the process that ran it.",
    "no_pixel_data": "The object holds no pixel data (a report, a plan, a directory).",
    "float_pixels": "Floating-point pixels, or a volume's 32-bit ones, declare no range.",
    "multi_frame": "There is more than one frame.",
    "colour": "The picture has colour or transparency: not one channel of grey.",
    "unsupported_transfer_syntax": "No decoder at hand reads this compression.",
    "undecodable_pixels": "The pixel data could not be decoded.",
    "no_instance_uid": "There is no SOP Instance UID.",
    "no_patient_id": "Nothing says whose image it is, so it cannot be split by patient.",
    "burned_in_annotation": "Text in the pixels is declared, or not ruled out on such a device.",
    "not_rewritable": "The cleaned header could not be written back as DICOM.",
    "residual_identity": "A value that must stay repeats something that identifies the patient.",
    "duplicate_file": "The same bytes came before, under another name.",
    "duplicate_pixels": "The same pixels came before, as another instance.",
    "pixels_of_several_patients": "The same pixels lie under several patients: nobody knows whose.",
    "conflicting_instance_uid": "Different files carry the same SOP Instance UID.",
    "unlabelled": "The labels table says nothing of it.",
    "other_class": "The labels table gives it a class that is neither of the two.",
    "unexpected_error": "Our own code stumbled over it; the log says where.",
    "label_conflict": "The labels table gives it two different labels.",
    "four_dimensional": "The volume has a fourth dimension, such as time or channels.",
    "mask_unreadable": "Its mask is no map of whole numbers that can be read.",
    "mask_mismatch": "Its mask lies on another grid: other rows, columns, frames or positions.",
    "overlapping_segments": "Segments overlap in its mask; name which ones to take.",
}


class SetAside(BadInput):
    """This one file cannot be used; `reason` is a key of `REASONS`, and nothing names the file."""

    def __init__(self, reason: str) -> None:
        super().__init__(REASONS[reason])
        self.reason = reason
